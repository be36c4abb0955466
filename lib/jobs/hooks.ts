/**
 * Task hooks: they watch the jobs of the tasks defined in their instance and in its children, and of the inline
 * functions handed over there. A hook that throws is logged; nobody waits for one.
 */
import type { FastifyInstance } from 'fastify'
import * as check from '../check.ts'
import { describe } from '../describe.ts'
import { errors } from '../errors.ts'
import type { Attempt, Failure, JobFacts } from '../job.ts'
import { cloneJson, type Json } from '../json.ts'
import type { Observer } from '../observe.ts'
import { factsOf } from './context.ts'

/** Hooks of tasks. Nobody waits for what they return. */
export interface TaskHooks {
  /** An attempt starts. */
  onTaskStart: (job: JobFacts) => unknown
  /** A job completed. `result` is the copy that the status shows. */
  onTaskEnd: (job: JobFacts, result: Json | undefined) => unknown
  /** An attempt failed. `error` is what was thrown, or a `JobAbortedError` after a timeout. */
  onTaskError: (job: JobFacts, error: unknown) => unknown
  /** A job became a dead letter; called after `onTaskError`. */
  onTaskDead: (job: JobFacts, error: unknown, failure: Failure) => unknown
}

const NAMES = ['onTaskStart', 'onTaskEnd', 'onTaskError', 'onTaskDead'] as const

export class Hooks {
  readonly #observer: Observer
  readonly #added: Array<{ app: FastifyInstance, name: keyof TaskHooks, hook: (...args: never[]) => unknown }> = []
  readonly #byOwner = new WeakMap<FastifyInstance, Map<keyof TaskHooks, Array<(...args: unknown[]) => unknown>>>()
  #closed = false

  constructor (observer: Observer) {
    this.#observer = observer
  }

  /** @throws FST_BG_BAD_OPTION, FST_BG_BAD_HANDLER, FST_BG_HOOK_AFTER_READY */
  add<Name extends keyof TaskHooks> (app: FastifyInstance, name: Name, hook: TaskHooks[Name]): void {
    check.must('addHook(name)', check.oneOf(...NAMES), name)
    if (typeof hook !== 'function') throw new errors.BadHandler(`addHook("${name}")`, check.came(hook))
    if (this.#closed) throw new errors.HookAfterReady(name)
    this.#added.push({ app, name, hook })
  }

  close (): void {
    this.#closed = true
  }

  call<Name extends keyof TaskHooks> (name: Name, owner: FastifyInstance, attempt: Pick<Attempt, 'job' | 'number'>, ...rest: unknown[]): void {
    if (this.#added.length === 0) return
    const hooks = this.#of(owner).get(name)
    if (hooks === undefined) return
    const job = factsOf(attempt)
    const failed = (error: unknown): void => { this.#observer.policyFailed(name, describe(error), attempt.job) }
    for (const hook of hooks) {
      // An async function, so that a thenable of any kind and a synchronous throw end in the same place.
      (async () => {
        // Each hook has its own copy of the result: what one does to it, neither the others nor the status see.
        await hook(job, ...name === 'onTaskEnd' ? [cloneJson(rest[0] as Json)] : rest)
      })().catch(failed)
    }
  }

  #of (owner: FastifyInstance): Map<keyof TaskHooks, Array<(...args: unknown[]) => unknown>> {
    let hooks = this.#byOwner.get(owner)
    if (hooks !== undefined) return hooks
    hooks = new Map()
    for (const { app, name, hook } of this.#added) {
      // A child instance is made with its parent as prototype.
      if (app !== owner && !Object.prototype.isPrototypeOf.call(app, owner)) continue
      hooks.set(name, [...hooks.get(name) ?? [], hook as (...args: unknown[]) => unknown])
    }
    this.#byOwner.set(owner, hooks)
    return hooks
  }
}
