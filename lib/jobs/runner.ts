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
import { copyAsJson, type Json } from '../json.ts'
import type { Observer } from '../observe.ts'
import { abortSignalOf, AttemptContext, factsOf, type Stage } from './context.ts'
import { asWorkOf } from './floating.ts'
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
  /** Whether the backend keeps the job over a shutdown: it is given back, not cancelled. */
  readonly durable: (job: NewJob) => boolean
}

/** A body still alive after so many times its timeout is given up. */
const GIVE_UP_AFTER = 10

export class Running implements Deadline, Stage {
  readonly attempt: Attempt
  readonly app: FastifyInstance
  readonly maxBytes: number
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

  constructor (runner: Runner, attempt: Attempt, app: FastifyInstance) {
    this.#runner = runner
    this.attempt = attempt
    this.app = app
    this.maxBytes = runner.settings.maxResultBytes
    this.begun = runner.settings.clock.monotonic()
    this.context = new AttemptContext(this)
  }

  /** The `reason` of the signal. */
  get reason (): JobAbortedError | undefined {
    return this.aborted && new JobAbortedError(this.aborted.kind, this.aborted.detail)
  }

  get aliveMs (): number { return this.#runner.settings.clock.monotonic() - this.begun }

  note (value: Json): void { this.#runner.watcher.progress(this.attempt, value) }

  soon (run: () => void): void { this.#runner.settings.clock.soon(run) }
}

export class Runner {
  readonly settings: RunnerSettings
  readonly watcher: Watcher
  readonly #alive = new Map<Attempt, Running>()
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
    for (const running of this.#alive.values()) if (running.leaked && !running.givenUp) ignoring++
    return ignoring
  }

  /** Whether a body of this job is alive, also one whose verdict was given. */
  lives (id: string): boolean {
    for (const { job } of this.#alive.keys()) if (job.id === id) return true
    return false
  }

  /** Runs the task, or the job's own inline work. Resolves when the body has settled. Never rejects. */
  async run (attempt: Attempt, task: TaskWork | undefined): Promise<Running> {
    const running = new Running(this, attempt, (task ?? attempt.job.local as Local).app)
    const { timeout } = attempt.job.policy
    if (this.#stopped || this.#cancelled.has(attempt)) {
      running.aborted = { kind: this.#stopped ? 'shutdown' : 'cancel', detail: '' }
      running.judged = this.#judgeAborted(running)
      return running
    }
    this.#alive.set(attempt, running)
    if (timeout > 0) this.#deadlines.set(running, running.begun + timeout)
    let judged: Judged
    try {
      const result = await asWorkOf(attempt, this.settings.observer, () => invoke(attempt, task, running.context))
      judged = running.aborted === undefined ? { outcome: this.#completed(result) } : this.#judgeAborted(running)
    } catch (thrown) {
      judged = running.aborted === undefined
        ? { ...afterThrow(thrown, attempt.job.policy, factsOf(attempt), this.settings.clock), thrown }
        : this.#judgeAborted(running)
    }
    this.#deadlines.delete(running)
    this.#alive.delete(attempt)
    if (running.leaked) this.#leaked--
    if (this.#alive.size === 0) this.#quiet?.()
    running.judged ??= judged
    return running
  }

  /** The first cause wins; a later one changes nothing, except that a cancelled job is not retried. */
  abort (attempt: Attempt, kind: AbortKind, detail: string): void {
    if (kind === 'cancel') this.#cancelled.add(attempt)
    const running = this.#alive.get(attempt)
    if (running === undefined || running.aborted !== undefined) return
    running.aborted = { kind, detail }
    running.abortedAt = this.settings.clock.monotonic()
    this.#schedule(running)
    asWorkOf(attempt, this.settings.observer, () => { abortSignalOf(running.context) })
  }

  /** The verdict as it is to be stored. A cancel that came after a timeout, or when the body had just ended, forbids a retry. */
  verdict ({ judged, attempt }: Running): Judged | undefined {
    return judged?.outcome.kind === 'retry' && this.#cancelled.has(attempt) ? { outcome: { kind: 'cancelled', reason: 'user' } } : judged
  }

  /** Aborts what runs, and starts nothing any more. `quiet` is called when no body is alive. */
  stop (detail: string, quiet: () => void): void {
    this.#stopped = true
    this.#quiet = quiet
    for (const attempt of this.#alive.keys()) this.abort(attempt, 'shutdown', detail)
    if (this.#alive.size === 0) quiet()
  }

  /** Judges every body that is still alive; for the end of a shutdown. */
  giveUpAll (): void {
    for (const running of this.#alive.values()) {
      if (!running.givenUp) this.#giveUp(running, running.aborted?.kind === 'cancel' ? this.#judgeAborted(running) : this.unfinished(running.attempt))
    }
    this.#deadlines.close()
  }

  #completed (result: unknown): Outcome {
    if (result === undefined) return { kind: 'completed' }
    try {
      const copied = copyAsJson(result)
      if (copied === undefined) return { kind: 'completed', resultOmitted: 'unserializable' }
      if (copied.bytes > this.settings.maxResultBytes) return { kind: 'completed', resultOmitted: 'too-large' }
      return { kind: 'completed', result: copied.value }
    } catch {
      return { kind: 'completed', resultOmitted: 'unserializable' }
    }
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
        return { outcome: { kind: 'cancelled', reason: 'user' } }
    }
  }

  /** A deadline of this attempt is over: its timeout, then the grace, then ten times its timeout. */
  #reach (running: Running): void {
    const now = Math.max(this.settings.clock.monotonic(), running.due)
    const { timeout } = running.attempt.job.policy
    if (running.aborted === undefined) {
      this.watcher.overdue(running.attempt)
      this.abort(running.attempt, 'timeout', timeoutError(timeout).message)
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

function invoke ({ job, payload }: Attempt, task: TaskWork | undefined, context: JobContext): unknown {
  const work = task === undefined ? (job.local as Local).run as (context: JobContext) => unknown : () => task.run(payload, context)
  // A scope for each body: what it enters with `enterWith` stays in it, and does not reach the next job of the slot.
  return (job.local?.context ?? new AsyncResource('BackgroundTask')).runInAsyncScope(work, undefined, context)
}
