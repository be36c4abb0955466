/** Runs each job to its end at once. */
import type { BackendSettings, Sink } from '../backend.ts'
import { errors } from '../errors.ts'
import type { Attempt, Failure, JobRecord, Outcome } from '../job.ts'
import { describe, type ErrorFacts } from '../describe.ts'
import type { Task } from '../jobs/task.ts'
import { Recorder, type TestBackend, type TestBackendOptions } from './recorder.ts'

/**
 * A backend for tests: each job runs at once to its end. For delays, pauses between attempts and rate limits the clock
 * leaps ahead while nothing runs. A job that fails makes the next `app.background.onIdle()` reject with
 * FST_BG_JOB_FAILED, several with an AggregateError. Lives in memory.
 * @throws FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION
 */
export function inline (options: TestBackendOptions = {}): TestBackend {
  return new Inline(options)
}

class Inline extends Recorder implements TestBackend {
  override readonly name = 'inline'
  readonly #wants = new Map<string, number>()
  #failed: Error[] = []
  #leaping = false

  constructor (options: TestBackendOptions) {
    super('inline(options)', options)
  }

  override start (sink: Sink, settings: BackendSettings): void {
    super.start({
      deliver: (attempts) => { sink.deliver(attempts) },
      abort: (attempt, kind, detail) => { sink.abort(attempt, kind, detail) },
      report: (incident) => {
        if (incident.kind === 'expired') this.#fail(incident.job.id, 'expired')
        if (incident.kind === 'child-failed') this.#fail(incident.job.id, 'unrecoverable', describe(new errors.ChildFailed(incident.child)))
        sink.report(incident)
      }
    }, settings)
    this.watch(() => { this.#leap() })
  }

  override want (queue: string, n: number): void {
    this.#wants.set(queue, n)
    super.want(queue, n)
  }

  override settle (attempt: Attempt, outcome: Outcome): void {
    super.settle(attempt, outcome)
    if (outcome.kind === 'dead') this.#fail(attempt.job.id, outcome.failure, outcome.error)
  }

  idle (): void {
    const failed = this.#failed
    this.#failed = []
    if (failed.length > 1) throw new AggregateError(failed, `${failed.length} jobs failed`)
    for (const error of failed) throw error
  }

  override async run (which: string | Task, payload?: unknown): Promise<JobRecord> {
    const { id } = await super.run(which, payload)
    await this.untilQuiet()
    return this.record(id)
  }

  async runAll (): Promise<JobRecord[]> {
    return this.untilQuiet()
  }

  protected override busy (): boolean {
    return this.running || this.waitingIn(this.#wants) || this.#nextDue() !== undefined
  }

  /** Nothing can happen before the first delayed job is due: time goes there. */
  #leap (): void {
    if (this.#leaping) return
    this.#leaping = true
    const leap = async (): Promise<void> => {
      for (;;) {
        await this.clock.settle()
        // While a response is open, its jobs could start early: at `maxHold`.
        const due = this.running || this.list({ states: ['pending'], limit: 1 }).length > 0 ? undefined : this.#nextDue()
        if (due === undefined) break
        await this.clock.advance(Math.max(1, due - this.clock.now()))
      }
      this.#leaping = false
    }
    void leap()
  }

  /** Wall time, ms, at which the first of the delayed jobs may start. */
  #nextDue (): number | undefined {
    const due = this.list({ states: ['delayed'], limit: Infinity }).map(({ retryAt, runAt }) => Date.parse(retryAt ?? runAt ?? ''))
    return due.length === 0 ? undefined : Math.min(...due)
  }

  #fail (id: string, failure: Failure, error?: ErrorFacts): void {
    this.#failed.push(Object.assign(new errors.JobFailed(id, failure, error?.message ?? ''), { failure, cause: error }))
  }
}
