/** Records jobs, and runs nothing until told. */
import { errors } from '../errors.ts'
import type { Attempt, JobRecord, Outcome } from '../job.ts'
import type { Task } from '../jobs/task.ts'
import { faultsOf, type Fake, type IdempotencyFault, type Interruption, type Trial } from './idempotency.ts'
import { nameOf, Recorder, type TestBackend, type TestBackendOptions } from './recorder.ts'

/** What `manual` makes. */
export interface ManualBackend extends TestBackend {
  /**
   * Runs a new job of the task once without disturbance; then, for each call that it made of the fake's methods, another
   * one whose first attempt ends right after that call, and which is then run to its end. Resolves to the runs that had
   * other effects than the first; none: what was tried is idempotent. Ids of jobs count as equal.
   * @throws what `app.background.add` throws; FST_BG_BAD_OPTION when the undisturbed run fails
   */
  checkIdempotent<Payload> (task: Task<Payload>, payload: NoInfer<Payload>, fake: Fake): Promise<IdempotencyFault[]>
  checkIdempotent (task: string, payload: unknown, fake: Fake): Promise<IdempotencyFault[]>
}

/**
 * A backend for tests: jobs are kept, and run by `run` and `runAll` alone. When the application closes, what waits is
 * cancelled at once. Lives in memory.
 * @throws FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION
 */
export function manual (options: TestBackendOptions = {}): ManualBackend {
  return new Manual(options)
}

class Manual extends Recorder implements ManualBackend {
  override readonly name = 'manual'
  /** What the application wants of each queue. */
  readonly #wants = new Map<string, number>()
  /** Calls of `runAll` that are under way. */
  #open = 0
  /** Jobs whose running attempt counts as failed, however it ends. */
  readonly #interrupted = new Map<string, Interruption>()

  constructor (options: TestBackendOptions) {
    super('manual(options)', options)
  }

  override want (queue: string, n: number): void {
    this.#wants.set(queue, n)
    if (this.#open > 0) super.want(queue, n)
  }

  async runAll (): Promise<JobRecord[]> {
    if (this.#open++ === 0) for (const [queue, n] of this.#wants) super.want(queue, n)
    try {
      return await this.untilQuiet()
    } finally {
      if (--this.#open === 0) for (const queue of this.#wants.keys()) super.want(queue, 0)
    }
  }

  override settle (attempt: Attempt, outcome: Outcome): void {
    const interruption = this.#interrupted.get(attempt.job.id)
    interruption?.disarm()
    this.#interrupted.delete(attempt.job.id)
    super.settle(attempt, interruption === undefined ? outcome : INTERRUPTED)
  }

  async checkIdempotent (task: string | Task, payload: unknown, fake: Fake): Promise<IdempotencyFault[]> {
    return faultsOf(fake, async (interruption) => this.#try(nameOf(task), payload, interruption))
  }

  async #try (task: string, payload: unknown, interruption: Interruption | undefined): Promise<Trial> {
    const id = await this.add(task, payload)
    if (interruption !== undefined) {
      this.#interrupted.set(id, interruption)
      await this.attempt(id)
    }
    const { state, error } = await this.attempt(id)
    if (state === 'completed') return { id, error: undefined }
    const text = error?.message ?? state
    if (interruption === undefined) throw new errors.BadOption('checkIdempotent(task, payload)', 'a payload with which the task succeeds', `one with which it fails: ${text}`)
    return { id, error: text }
  }

  protected override busy (): boolean {
    return this.running || this.waitingIn(this.#wants)
  }
}

/** As if the process had died: charged, and started again. */
const INTERRUPTED: Outcome = {
  kind: 'retry', delay: 0, charged: true, error: { name: 'Error', code: null, message: 'interrupted by checkIdempotent' }
}
