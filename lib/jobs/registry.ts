/** The tasks of an application: name → handler, policy, payload schema, owner. Closed when the application is ready. */
import AjvCompiler from '@fastify/ajv-compiler'
import type { AnySchema } from 'ajv'
import type { FastifyInstance, FastifySchemaCompiler } from 'fastify'
import * as check from '../check.ts'
import { describe } from '../describe.ts'
import { errors } from '../errors.ts'
import type { JobContext } from '../job.ts'
import { JOB_CHECKS, layJobOptions, type ResolvedJobOptions } from '../job-options.ts'
import { copyAsJson, type Copied, type Json } from '../json.ts'
import type { Task, TaskOptions } from './task.ts'

type TaskBody = (payload: Json, context: JobContext) => unknown

export class DefinedTask implements Task {
  readonly name: string
  readonly app: FastifyInstance
  readonly options: ResolvedJobOptions
  readonly run: TaskBody
  readonly schema: unknown
  validate: ((payload: unknown) => unknown) & { errors?: ReadonlyArray<{ instancePath?: string, message?: string }> | null } | undefined

  constructor (name: string, app: FastifyInstance, options: ResolvedJobOptions, schema: unknown, run: TaskBody) {
    this.name = name
    this.app = app
    this.options = options
    this.schema = schema
    this.run = run
  }
}

const TASK_CHECKS: check.Checks = {
  ...JOB_CHECKS,
  schema: (value) => typeof value === 'object' && value !== null ? undefined : 'a schema, an object'
}

export class Registry {
  readonly #tasks = new Map<string, DefinedTask>()
  readonly #defaults: ResolvedJobOptions
  #closed = false

  constructor (defaults: ResolvedJobOptions) {
    this.#defaults = defaults
  }

  /** @throws FST_BG_DEFINE_AFTER_READY, FST_BG_DUPLICATE_TASK, FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION, FST_BG_BAD_HANDLER */
  define (app: FastifyInstance, name: string, options: TaskOptions, handler: unknown): Task {
    check.must('define(name)', check.name, name)
    if (this.#closed) throw new errors.DefineAfterReady(name)
    if (this.#tasks.has(name)) throw new errors.DuplicateTask(name)
    const where = `define("${name}") options`
    const { schema, ...given } = check.options<TaskOptions>(where, TASK_CHECKS, options)
    if (given.queue !== undefined && given.queue !== 'default') throw new errors.UnknownQueue(`"${given.queue}"`, 'default')
    if (typeof handler !== 'function') throw new errors.BadHandler(`define("${name}") handler`, check.came(handler))
    const task = new DefinedTask(name, app, layJobOptions(where, this.#defaults, given), schema, handler as TaskBody)
    this.#tasks.set(name, task)
    return task
  }

  /**
   * Compiles the payload schemas; no task can be defined afterwards.
   * @throws FST_BG_BAD_SCHEMA
   */
  close (): void {
    this.#closed = true
    for (const task of this.#tasks.values()) {
      if (task.schema === undefined) continue
      try {
        task.validate = compilerOf(task.app)({ schema: task.schema, method: 'POST', url: `/${task.name}`, httpPart: 'body' })
      } catch (cause) {
        throw Object.assign(new errors.BadSchema(task.name, describe(cause).message), { cause })
      }
    }
  }

  find (name: string): DefinedTask | undefined {
    return this.#tasks.get(name)
  }

  /** @throws FST_BG_UNKNOWN_TASK */
  get (task: unknown): DefinedTask {
    const found = typeof task === 'string' ? this.#tasks.get(task) : task
    if (found instanceof DefinedTask && this.#tasks.get(found.name) === found) return found
    const names = [...this.#tasks.keys()].slice(0, 20).join(', ') || 'none'
    throw new errors.UnknownTask(check.came(task), names)
  }
}

/** The instance's own compiler. Fastify makes none while no route has a schema; then the one it would have made. */
function compilerOf (app: FastifyInstance): FastifySchemaCompiler<unknown> {
  const own = app.validatorCompiler as FastifySchemaCompiler<unknown> | undefined
  return own ?? AjvCompiler()(app.getSchemas() as Record<string, AnySchema>, { customOptions: {} }) as FastifySchemaCompiler<unknown>
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
    throw Object.assign(new errors.PayloadNotJson(name, describe(cause).name), { cause })
  }
  if (copied === undefined) throw new errors.PayloadNotJson(name, check.came(payload))
  return copied
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
