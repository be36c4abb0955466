/** The tasks of an application: name → handler, policy, payload schema, owner. Closed when the application is ready. */
import AjvCompiler from '@fastify/ajv-compiler'
import type { AnySchema } from 'ajv'
import type { FastifyInstance, FastifySchemaCompiler } from 'fastify'
import type { Backends } from '../backend.ts'
import { assertPolicySupported, assertSupported } from '../capabilities.ts'
import * as check from '../check.ts'
import { describe, peek } from '../describe.ts'
import { errors } from '../errors.ts'
import type { Policy } from '../job.ts'
import { JOB_CHECKS, layPolicy } from '../job-options.ts'
import { copyAsJson, type Copied, type Json } from '../json.ts'
import type { PoolSettings, Settings } from '../options.ts'
import type { Task, TaskOptions, WorkerTaskOptions } from './task.ts'
import { workerFile, type TaskBody, type Threads } from './threads.ts'

export class DefinedTask implements Task {
  readonly kind = 'task'
  readonly name: string
  readonly app: FastifyInstance
  readonly policy: Policy
  readonly run: TaskBody
  readonly schema: unknown
  readonly resultSchema: object | undefined
  validate: ((payload: unknown) => unknown) & { errors?: ReadonlyArray<{ instancePath?: string, message?: string }> | null } | undefined

  constructor (name: string, app: FastifyInstance, policy: Policy, schemas: { schema: unknown, resultSchema: object | undefined }, run: TaskBody) {
    this.name = name
    this.app = app
    this.policy = policy
    this.schema = schemas.schema
    this.resultSchema = schemas.resultSchema
    this.run = run
  }
}

const TASK_CHECKS: check.Checks = {
  ...JOB_CHECKS,
  concurrency: check.concurrency,
  worker: check.anything,
  schema: (value) => typeof value === 'object' && value !== null ? undefined : 'a schema, an object',
  resultSchema: (value) => check.entriesOf(value) !== undefined && typeof peek(value, 'safeParse') !== 'function'
    ? undefined : 'a JSON schema, an object (of a Zod schema: z.toJSONSchema(schema))'
}

export class Registry {
  readonly #tasks = new Map<string, DefinedTask>()
  /** The same, for calls with what `define` returned. */
  readonly #known = new WeakSet<DefinedTask>()
  readonly #defaults: Policy
  readonly #threads: Threads
  /** Private queues are added as their tasks are defined. */
  readonly queues: Map<string, PoolSettings>
  #closed = false

  constructor (settings: Settings, threads: Threads) {
    this.#threads = threads
    this.#defaults = settings.taskDefaults
    this.queues = new Map(settings.queues)
  }

  /** @throws FST_BG_DEFINE_AFTER_READY, FST_BG_DUPLICATE_TASK, FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION, FST_BG_UNKNOWN_QUEUE, FST_BG_BAD_HANDLER */
  define (app: FastifyInstance, name: string, options: TaskOptions, handler: unknown): Task {
    check.must('define(name)', check.name, name)
    if (this.#closed) throw new errors.DefineAfterReady(name)
    if (this.#tasks.has(name)) throw new errors.DuplicateTask(name)
    const where = `define("${name}") options`
    const { schema, resultSchema, concurrency, worker, ...given } = check.options<TaskOptions & Partial<WorkerTaskOptions>>(where, TASK_CHECKS, options)
    if (worker !== undefined && handler !== undefined) throw new errors.BadOption(where, 'either a handler or the option worker', 'both')
    const file = worker === undefined ? undefined : workerFile(`${where}.worker`, worker)
    if (file === undefined && typeof handler !== 'function') throw new errors.BadHandler(`define("${name}") handler`, check.came(handler))
    if (concurrency !== undefined) {
      if (given.queue !== undefined) throw new errors.BadOption(`${where}.concurrency`, 'either concurrency, for a private queue, or queue', 'both')
      if (this.queues.has(name)) throw new errors.BadOption(`${where}.concurrency`, 'a task whose name is free for a private queue', `a queue "${name}" that exists`)
      given.queue = name
    } else if (given.queue !== undefined) this.checkQueue(given.queue)
    const policy = layPolicy(where, this.#defaults, given)
    const task = new DefinedTask(name, app, policy, { schema, resultSchema }, file === undefined ? handler as TaskBody : this.#threads.bodyOf(file))
    if (concurrency !== undefined) this.queues.set(name, { concurrency, limiter: undefined })
    this.#tasks.set(name, task)
    this.#known.add(task)
    return task
  }

  /**
   * Compiles the payload schemas; no task can be defined afterwards.
   * @throws FST_BG_BAD_SCHEMA, FST_BG_NOT_SUPPORTED
   */
  close (backends: Backends): void {
    this.#closed = true
    for (const [name, { limiter, groups }] of this.queues) {
      if (groups !== undefined) assertSupported(backends.of(name, false), 'groups', `the groups of queue "${name}"`)
      if (limiter !== undefined) assertSupported(backends.of(name, false), 'limiter', `the limiter of queue "${name}"`)
    }
    for (const task of this.#tasks.values()) {
      assertPolicySupported(backends.of(task.policy.queue, false), task.policy)
      if (task.schema === undefined) continue
      try {
        task.validate = compile(task)
      } catch (cause) {
        throw Object.assign(new errors.BadSchema(task.name, describe(cause).message), { cause })
      }
    }
  }

  /** @throws FST_BG_UNKNOWN_QUEUE */
  checkQueue (queue: string): void {
    if (!this.queues.has(queue)) throw new errors.UnknownQueue(check.came(queue), [...this.queues.keys()].join(', '))
  }

  get tasks (): Iterable<DefinedTask> { return this.#tasks.values() }

  /** By task, where it was given. */
  get resultSchemas (): Array<[name: string, schema: object]> {
    return [...this.#tasks.values()].flatMap(({ name, resultSchema }) => resultSchema === undefined ? [] : [[name, resultSchema]])
  }

  find (name: string): DefinedTask | undefined {
    return this.#tasks.get(name)
  }

  /** @throws FST_BG_UNKNOWN_TASK */
  get (task: unknown): DefinedTask {
    // Not by `instanceof`, which asks a proxy, and throws what that throws.
    const found = typeof task === 'string' ? this.#tasks.get(task) : this.#known.has(task as DefinedTask) ? task as DefinedTask : undefined
    if (found !== undefined) return found
    const names = [...this.#tasks.keys()].slice(0, 20).join(', ') || 'none'
    throw new errors.UnknownTask(check.came(task), names)
  }
}

/**
 * By the instance's own compiler. Fastify makes none while no route has a schema; then by the one it would have made
 * (without the server's `ajv` options, which it shows to nobody).
 */
function compile ({ app, name, schema }: DefinedTask): DefinedTask['validate'] {
  const request = { schema, method: 'POST', url: `/${name}`, httpPart: 'body' }
  const own = app.validatorCompiler as FastifySchemaCompiler<unknown> | undefined
  const madeHere = (): FastifySchemaCompiler<unknown> =>
    AjvCompiler()(app.getSchemas() as Record<string, AnySchema>, { customOptions: {} }) as FastifySchemaCompiler<unknown>
  if (own === undefined) return madeHere()(request)
  try {
    return own(request)
  } catch (error) {
    // A child without routes has its parent's compiler, which does not know what the child shares.
    if (peek(error, 'missingRef') === undefined) throw error
    return madeHere()(request)
  }
}

/**
 * The copy of a payload that its job keeps. An omitted payload is `null`.
 * @throws FST_BG_PAYLOAD_NOT_JSON, FST_BG_PAYLOAD_TOO_LARGE, FST_BG_BAD_PAYLOAD
 */
export function takePayload (task: DefinedTask, payload: unknown, maxBytes: number): Copied {
  const copied = copy(task.name, payload ?? null)
  if (copied.bytes > maxBytes) throw new errors.PayloadTooLarge(task.name, maxBytes, copied.bytes)
  if (task.validate === undefined) return copied
  // The validator works on the copy, so that coercion and defaults never reach the caller's object.
  const validated = copy(task.name, validate(task, copied.value))
  if (validated.bytes > maxBytes) throw new errors.PayloadTooLarge(task.name, maxBytes, validated.bytes)
  return validated
}

function copy (name: string, payload: unknown): Copied {
  let copied: Copied | undefined
  try {
    copied = copyAsJson(payload)
  } catch (cause) {
    throw Object.assign(new errors.PayloadNotJson(name, whyNotJson(cause)), { cause })
  }
  if (copied === undefined) throw new errors.PayloadNotJson(name, check.came(payload))
  return copied
}

/** What `JSON.stringify` stumbled over. Its own text, or a `toJSON`'s, may quote the payload. */
function whyNotJson (cause: unknown): string {
  const { name, message } = describe(cause)
  if (message.includes('BigInt')) return 'it holds a BigInt'
  if (message.includes('circular structure')) return 'it is circular'
  return message.startsWith('nested deeper') ? `it is ${message}` : `${name} was thrown while it was copied`
}

function validate (task: DefinedTask, payload: Json): unknown {
  const answer = task.validate?.(payload)
  if (answer === true || answer === undefined) return payload
  if (answer === false) throw new errors.BadPayload(task.name, faults(task.validate?.errors))
  const { value, error } = answer as { value?: unknown, error?: unknown }
  if (error !== undefined && error !== null) throw Object.assign(new errors.BadPayload(task.name, describe(error).message), { cause: error })
  return value === undefined ? payload : value
}

function faults (found: ReadonlyArray<{ instancePath?: string, message?: string }> | null | undefined): string {
  return found?.map(({ instancePath = '', message = '' }) => `payload${instancePath} ${message}`).join(', ') ?? 'unknown reason'
}
