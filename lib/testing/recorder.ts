/** What both backends for tests have: memory on a clock of their own, which writes down what jobs go through. */
import type { Backend, BackendSettings, Sink } from '../backend.ts'
import { Memory } from '../backends/memory/index.ts'
import * as check from '../check.ts'
import { errors } from '../errors.ts'
import type { Attempt, JobRecord, JobState, NewJob, Outcome, Duplicates } from '../job.ts'
import type { Task } from '../jobs/task.ts'
import { TestClock } from './clock.ts'
import { fits } from './fits.ts'
import { History } from './history.ts'

/** Options of `manual` and `inline`. */
export interface TestBackendOptions {
  /** Wall time at the start: Date, ISO 8601 or ms since the epoch. @default '2026-01-01T00:00:00.000Z' */
  now?: Date | string | number | undefined
}

/** A backend with the controls of a test. It belongs to one application. */
export interface TestBackend extends Backend {
  /** The application's time, for delays, backoff, timeouts, ttl, rate limits and schedules. It stands still until `advance(ms)`. */
  readonly clock: TestClock
  /**
   * Jobs that have not ended and do not run, oldest first: all, those of a task, or those whose payload also fits
   * `match`, an object of which not every key has to be given.
   */
  enqueued (task?: string | Task, match?: unknown): Promise<JobRecord[]>
  /**
   * Runs one attempt, of the job with this id, or of a new job of this task, and resolves to the job's record. What
   * the handler throws is in the record (`state`, `error`), not thrown.
   * @throws FST_BG_BAD_OPTION when the job does not wait; for a new job what `app.background.add` throws
   */
  run<Payload> (task: Task<Payload>, payload: NoInfer<Payload>): Promise<JobRecord>
  run (idOrTask: string, payload?: unknown): Promise<JobRecord>
  /**
   * Runs all that may start now, and what these jobs add, in the order and with the limits of the application. Not
   * what is delayed, limited or paused. Resolves to the records of the jobs that had an attempt.
   */
  runAll (): Promise<JobRecord[]>
  /**
   * Resolves to a job that has reached the state, the first of a task or the first for which the predicate holds; also
   * when that was before the call. Waits for ever for what never happens.
   */
  waitFor (which: string | Task | ((job: JobRecord) => boolean), state: JobState): Promise<JobRecord>
}

const CHECKS: check.Checks = { now: check.instant }
const UNSTARTED: readonly JobState[] = ['pending', 'waiting', 'delayed', 'waiting-children']

export abstract class Recorder extends Memory {
  declare readonly clock: TestClock
  readonly #history = new History((id) => this.get(id))
  #settings: BackendSettings | undefined
  /** Attempts delivered and not settled. */
  #out = 0
  /** Called at the end of a job's attempt. */
  readonly #ends = new Map<string, () => void>()
  readonly #waiters = new Set<() => void>()

  constructor (where: string, options: TestBackendOptions) {
    const { now } = check.options<TestBackendOptions>(where, CHECKS, options)
    super(new TestClock(now === undefined ? undefined : check.toEpoch(now)))
    this.clock.busy = () => this.running
  }

  protected get running (): boolean { return this.#out > 0 }

  override start (sink: Sink, settings: BackendSettings): void {
    super.start({
      deliver: (attempts) => {
        this.#out += attempts.length
        sink.deliver(attempts)
      },
      abort: (attempt, kind, detail) => { sink.abort(attempt, kind, detail) },
      report: (incident) => { sink.report(incident) }
    }, settings)
    this.#settings = settings
    this.watch(({ id, state }) => { this.#note(id, state) })
  }

  override enqueue (jobs: readonly NewJob[], staged: boolean): Duplicates | undefined {
    const duplicates = super.enqueue(jobs, staged)
    if (staged) for (const { id } of jobs) if (duplicates?.has(id) !== true) this.#note(id, 'pending')
    return duplicates
  }

  override settle (attempt: Attempt, outcome: Outcome): void {
    this.#out--
    super.settle(attempt, outcome)
    this.#ends.get(attempt.job.id)?.()
    this.#stir()
  }

  drain (): void {
    void this.clock.flow()
  }

  override close (): void {
    this.clock.stop()
    super.close()
  }

  async enqueued (task?: string | Task, match?: unknown): Promise<JobRecord[]> {
    await this.clock.settle()
    const jobs = this.list({ states: UNSTARTED, limit: Infinity, ...(task !== undefined && { name: nameOf(task) }) })
    return match === undefined ? jobs : jobs.filter(({ payload }) => fits(payload, match))
  }

  async run (which: string | Task, payload?: unknown): Promise<JobRecord> {
    await this.clock.settle()
    const name = nameOf(which)
    return this.attempt(this.get(name) === undefined ? await this.add(name, payload) : name)
  }

  async waitFor (which: string | Task | ((job: JobRecord) => boolean), state: JobState): Promise<JobRecord> {
    return this.#history.until(typeof which === 'function' ? which : ({ name }) => name === nameOf(which), state)
  }

  protected async add (task: string, payload: unknown): Promise<string> {
    if (this.#settings?.add === undefined) throw new errors.NotReady('a backend that is not started')
    return (await this.#settings.add(task, payload)).id
  }

  /** The next attempt of a job, out of its turn. */
  protected async attempt (id: string): Promise<JobRecord> {
    await new Promise<void>((resolve) => {
      this.#ends.set(id, resolve)
      if (!this.begin(id)) throw new errors.BadOption('run(id)', 'a job that waits or is delayed', `one that is ${this.get(id)?.state}`)
    }).finally(() => { this.#ends.delete(id) })
    return this.record(id)
  }

  /** Also of a job that retention has forgotten. */
  protected record (id: string): JobRecord {
    return this.#history.job(id) as JobRecord
  }

  /** Resolves when nothing runs and nothing may start. Answers the jobs that had an attempt meanwhile. */
  protected async untilQuiet (): Promise<JobRecord[]> {
    const started = new Set<string>()
    const unwatch = this.watch(({ id, state }) => {
      if (state === 'active') started.add(id)
    })
    await this.clock.settle()
    while (this.busy()) {
      await new Promise<void>((resolve) => { this.#waiters.add(resolve) })
      await this.clock.settle()
    }
    unwatch()
    return [...started].map((id) => this.record(id))
  }

  /** Whether a job runs, or may start without anybody's doing. */
  protected abstract busy (): boolean

  /** Jobs that wait for a slot alone, in the queues that may start some. */
  protected waitingIn (queues: ReadonlyMap<string, number>): boolean {
    return Object.entries(this.counts()).some(([name, { waiting }]) => waiting > 0 && (queues.get(name) ?? 0) > 0)
  }

  #note (id: string, state: JobState): void {
    this.#history.note(id, state)
    this.#stir()
  }

  #stir (): void {
    for (const wake of this.#waiters) wake()
    this.#waiters.clear()
  }
}

export function nameOf (task: string | Task): string {
  return typeof task === 'string' ? task : task.name
}
