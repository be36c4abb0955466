/**
 * One attempt: its signal, its timeout, its end. The first cause wins: after a timeout, a cancel or a shutdown has
 * aborted the signal, what the body then returns or throws does not change the verdict. The verdict is given when
 * the body has settled; only a body alive after ten times its timeout, or after the shutdown's grace, is judged
 * before, and then keeps its slot.
 */
import { AsyncResource } from 'node:async_hooks'
import type { FastifyInstance } from 'fastify'
import type { Clock } from '../clock.ts'
import { Deadlines, type Deadline } from '../deadlines.ts'
import { JobAbortedError, type AbortKind } from '../errors.ts'
import type { Attempt, JobContext, Local, NewJob, Outcome } from '../job.ts'
import type { Json } from '../json.ts'
import type { Observer } from '../observe.ts'
import type { AttemptScope } from '../propagator.ts'
import { abortSignalOf, AttemptContext, factsOf, flushContext, type Stage } from './context.ts'
import { asWorkOf } from './floating.ts'
import { keepResult } from './result.ts'
import { afterThrow, afterTimeout, timeoutError, type Judged } from './retry.ts'

/** The code of a task. */
export interface TaskWork {
  readonly app: FastifyInstance
  readonly run: (payload: Json, context: JobContext) => unknown
}

/** What the runner tells while a body runs. */
export interface Watcher {
  overdue (attempt: Attempt): void
  progress (attempt: Attempt, value: Json): void
  /** The body ignores its signal, the grace is over. */
  leaked (running: Running): void
  /** The verdict on a body that still runs. */
  judgedAlive (running: Running, judged: Judged): void
}

export interface RunnerSettings {
  readonly clock: Clock
  readonly observer: Observer
  readonly abortGrace: number
  readonly maxResultBytes: number
  /** Resolves when the loop has turned and requests have had their part. */
  readonly give: () => Promise<void>
  /** Whether the backend keeps the job over a shutdown: it is given back, not cancelled. */
  readonly durable: (job: NewJob) => boolean
}

/** Of most attempts. */
const COMPLETED: Judged = { outcome: { kind: 'completed' } }
const CANCELLED: Judged = { outcome: { kind: 'cancelled', reason: 'user' } }
/** A body still alive after so many times its timeout is given up. */
const GIVE_UP_AFTER = 10

export class Running implements Deadline, Stage {
  readonly attempt: Attempt
  readonly app: FastifyInstance
  readonly begun: number
  readonly context: AttemptContext
  readonly #runner: Runner
  aborted: { readonly kind: AbortKind, readonly detail: string } | undefined
  abortedAt = 0
  leaked = false
  /** The verdict; there before the body's end only if it was given up. */
  judged: Judged | undefined
  givenUp = false
  due = 0
  place = -1
  /** Index among those that are alive. Written by the runner alone. */
  at = -1
  /** What goes along with the job has something to do around the body. */
  scope: AttemptScope | undefined
  /** What the code returned: a promise, that of a task or of anybody, or a value. */
  body: unknown

  constructor (runner: Runner, attempt: Attempt, app: FastifyInstance, begun: number) {
    this.#runner = runner
    this.attempt = attempt
    this.app = app
    this.begun = begun
    this.context = new AttemptContext(this)
  }

  get clock (): Clock { return this.#runner.settings.clock }
  get maxBytes (): number { return this.#runner.settings.maxResultBytes }

  /** The `reason` of the signal. */
  get reason (): JobAbortedError | undefined {
    return this.aborted && new JobAbortedError(this.aborted.kind, this.aborted.detail)
  }

  get aliveMs (): number { return this.#runner.settings.clock.monotonic() - this.begun }

  note (value: Json): void { this.#runner.watcher.progress(this.attempt, value) }

  give (): Promise<void> { return this.#runner.settings.give() }
}

export class Runner {
  readonly settings: RunnerSettings
  readonly watcher: Watcher
  /** An array, not a Map by attempt, which costs more than the rest of the bookkeeping; few are ever looked for. */
  readonly #alive: Running[] = []
  /** Attempts whose jobs were cancelled: before their body began, while it ran, or when it had just ended. */
  readonly #cancelled = new WeakSet<Attempt>()
  readonly #deadlines: Deadlines<Running>
  #leaked = 0
  #stopped = false
  #quiet: (() => void) | undefined

  constructor (settings: RunnerSettings, watcher: Watcher) {
    this.settings = settings
    this.watcher = watcher
    this.#deadlines = new Deadlines(settings.clock, (running) => this.#reach(running))
  }

  /** Bodies that go on although their signal aborted more than the grace ago. */
  get leaked (): number { return this.#leaked }

  /** Of these, the ones whose job is still active. */
  get ignoring (): number {
    let ignoring = 0
    for (const running of this.#alive) if (running.leaked && !running.givenUp) ignoring++
    return ignoring
  }

  /** Whose bodies these are. */
  leakers (): NewJob[] {
    return this.#alive.filter(({ leaked }) => leaked).map(({ attempt }) => attempt.job)
  }

  /** Whether a body of this job is alive, also one whose verdict was given. */
  lives (id: string): boolean {
    return this.#alive.some(({ attempt }) => attempt.job.id === id)
  }

  /** Whether a body may start: not once its job was cancelled on the way, or all was stopped. */
  mayBegin (attempt: Attempt): boolean { return !this.#stopped && !this.#cancelled.has(attempt) }

  /** Starts the task, or the job's own inline work. Never throws. */
  begin (attempt: Attempt, app: FastifyInstance, task: TaskWork | undefined, now: number, scope?: AttemptScope): Running {
    const running = new Running(this, attempt, app, now)
    running.scope = scope
    if (!this.mayBegin(attempt)) {
      running.aborted = { kind: this.#stopped ? 'shutdown' : 'cancel', detail: '' }
      running.judged = this.#judgeAborted(running)
      return running
    }
    running.at = this.#alive.push(running) - 1
    const { timeout } = attempt.job.policy
    if (timeout > 0) this.#deadlines.set(running, now + timeout)
    running.body = invoke(running, task, this.settings.observer)
    return running
  }

  /** The body has settled. */
  finish (running: Running, threw: boolean, value: unknown): void {
    if (running.at === -1) return // it never began
    flushContext(running.context)
    this.#deadlines.delete(running)
    this.#bury(running)
    if (running.leaked) this.#leaked--
    if (this.#alive.length === 0) this.#quiet?.()
    running.judged ??= this.#judge(running, threw, value)
  }

  #judge (running: Running, threw: boolean, value: unknown): Judged {
    if (running.aborted !== undefined) return this.#judgeAborted(running)
    if (!threw && value === undefined) return COMPLETED
    if (!threw) return { outcome: { kind: 'completed', ...keepResult(value, this.settings.maxResultBytes) } }
    const { attempt } = running
    return { ...afterThrow(value, attempt.job.policy, factsOf(attempt), this.settings.clock), thrown: value }
  }

  #bury (running: Running): void {
    const last = this.#alive.pop() as Running
    if (last !== running) {
      this.#alive[running.at] = last
      last.at = running.at
    }
    running.at = -1
  }

  /** The first cause wins; a later one changes nothing, except that a cancelled job is not retried. */
  abort (attempt: Attempt, kind: AbortKind, detail: string): void {
    if (kind === 'cancel') this.#cancelled.add(attempt)
    const running = this.#alive.find((each) => each.attempt === attempt)
    if (running !== undefined) this.#abort(running, kind, detail)
  }

  #abort (running: Running, kind: AbortKind, detail: string): void {
    if (running.aborted !== undefined) return
    running.aborted = { kind, detail }
    running.abortedAt = this.settings.clock.monotonic()
    this.#schedule(running)
    asWorkOf(running.attempt, this.settings.observer, abortSignalOf, running.context, undefined)
  }

  /** The verdict as it is to be stored. A cancel that came after a timeout, or when the body had just ended, forbids a retry. */
  verdict ({ judged, attempt }: Running): Judged | undefined {
    return judged?.outcome.kind === 'retry' && this.#cancelled.has(attempt) ? CANCELLED : judged
  }

  /** Aborts what runs, and starts nothing any more. `quiet` is called when no body is alive. */
  stop (detail: string, quiet: () => void): void {
    this.#stopped = true
    this.#quiet = quiet
    for (const running of this.#alive) this.#abort(running, 'shutdown', detail)
    if (this.#alive.length === 0) quiet()
  }

  /** Judges every body that is still alive; for the end of a shutdown. */
  giveUpAll (): void {
    for (const running of this.#alive) {
      if (!running.givenUp) this.#giveUp(running, this.#cancelled.has(running.attempt) ? CANCELLED : this.unfinished(running.attempt))
    }
    this.#deadlines.close()
  }

  /** Of an attempt that a shutdown cut off: a durable backend takes its job back. */
  unfinished ({ job }: Attempt): Judged {
    return { outcome: this.settings.durable(job) ? { kind: 'released', delay: 0 } : { kind: 'cancelled', reason: 'shutdown' } }
  }

  #judgeAborted (running: Running): Judged {
    const { attempt } = running
    switch (running.aborted?.kind) {
      case 'shutdown':
        return this.unfinished(attempt)
      case 'timeout':
        return { ...afterTimeout(attempt.job.policy, factsOf(attempt), this.settings.clock.random), thrown: running.reason }
      default:
        return CANCELLED
    }
  }

  /** A deadline of this attempt is over: its timeout, then the grace, then ten times its timeout. */
  #reach (running: Running): void {
    const now = Math.max(this.settings.clock.monotonic(), running.due)
    const { timeout } = running.attempt.job.policy
    if (running.aborted === undefined) {
      this.watcher.overdue(running.attempt)
      this.#abort(running, 'timeout', timeoutError(timeout).message)
      return
    }
    if (!running.leaked && now >= running.abortedAt + this.settings.abortGrace) {
      running.leaked = true
      this.#leaked++
      this.watcher.leaked(running)
    }
    if (!running.givenUp && timeout > 0 && now >= running.begun + GIVE_UP_AFTER * timeout) {
      const dead: Outcome = { kind: 'dead', error: timeoutError(timeout), failure: 'timeout' }
      this.#giveUp(running, running.aborted.kind === 'timeout' ? { outcome: dead, thrown: running.reason } : this.#judgeAborted(running))
    }
    this.#schedule(running)
  }

  #schedule (running: Running): void {
    const { timeout } = running.attempt.job.policy
    const graceEnd = running.leaked ? Infinity : running.abortedAt + this.settings.abortGrace
    const giveUp = running.givenUp || timeout === 0 ? Infinity : running.begun + GIVE_UP_AFTER * timeout
    const due = Math.min(graceEnd, giveUp)
    if (due < Infinity) this.#deadlines.set(running, due)
  }

  #giveUp (running: Running, judged: Judged): void {
    running.givenUp = true
    running.judged = judged
    this.watcher.judgedAlive(running, judged)
  }
}

function invoke (running: Running, task: TaskWork | undefined, observer: Observer): unknown {
  try {
    return asWorkOf(running.attempt, observer, runInScope, running, task)
  } catch (thrown) {
    return Promise.reject(thrown)
  }
}

function runInScope (running: Running, task: TaskWork | undefined): unknown {
  const { attempt: { job: { local } }, scope } = running
  // A resource for each body: what it enters with `enterWith` stays in it, and does not reach the next job of the slot.
  const resource = local?.context ?? new AsyncResource('BackgroundTask')
  if (scope !== undefined) return resource.runInAsyncScope(() => scope.run(() => call(running, task)))
  return resource.runInAsyncScope(call, undefined, running, task)
}

function call ({ attempt, context }: Running, task: TaskWork | undefined): unknown {
  if (task === undefined) {
    const { run } = attempt.job.local as Local
    return (run as (context: JobContext) => unknown)(context)
  }
  const { run } = task
  return run(attempt.payload, context)
}
