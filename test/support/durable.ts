/** A durable backend for tests: it keeps its jobs like memory, answers later, and fails or waits as a test says. */
import type { Awaitable, Backend, BackendSettings, CancelAnswer, Change, Duplicates, JobQuery, Load, Note, QueueCounts, Sink } from '../../lib/backend.ts'
import { memory, type Capabilities, type Clock } from '../../lib/index.ts'
import type { Attempt, CancelReason, JobRecord, NewJob, Outcome } from '../../lib/job.ts'
import { deferred, type Deferred } from './harness.ts'

export class DurableBackend implements Backend {
  readonly name: string
  readonly durable = true
  readonly capabilities: Capabilities = { inline: false, delay: true, ttl: true, priority: true, limiter: true, deduplication: true, groups: true, cancelled: true }
  readonly clock?: Clock
  /** What was called, in order: `enqueue pending a, b`, `release a`, `cancel a response`, `settle a completed`, `close`. */
  readonly calls: string[] = []
  /** Given: calls that write reject. */
  failure: Error | undefined
  readonly #inner: Backend
  readonly #names = new Map<string, string>()
  #gate: Deferred | undefined

  constructor ({ name = 'durable', clock }: { name?: string, clock?: Clock } = {}) {
    this.name = name
    this.#inner = memory(clock && { clock })
    if (clock !== undefined) this.clock = clock
  }

  get unreachable (): boolean { return this.failure !== undefined }

  /** Writes wait from now on. Answers how to let them go. */
  hold (): () => void {
    const gate = this.#gate = deferred()
    return () => {
      this.#gate = undefined
      gate.resolve()
    }
  }

  start (sink: Sink, settings: BackendSettings): Awaitable<void> { return this.#inner.start(sink, settings) }
  want (queue: string, n: number): void { this.#inner.want(queue, n) }

  async settle (attempt: Attempt, outcome: Outcome): Promise<void> {
    this.calls.push(`settle ${attempt.job.name} ${outcome.kind}`)
    await this.#write()
    await this.#inner.settle(attempt, outcome)
  }

  async note (attempt: Attempt, note: Note): Promise<void> { await this.#inner.note(attempt, note) }

  async enqueue (jobs: readonly NewJob[], staged: boolean): Promise<Duplicates | void> {
    for (const { id, name } of jobs) this.#names.set(id, name)
    this.calls.push(`enqueue${staged ? ' pending' : ''} ${jobs.map(({ name }) => name).join(', ')}`)
    await this.#write()
    const duplicates = await this.#inner.enqueue(jobs, staged)
    this.calls.push('stored')
    return duplicates
  }

  async release (ids: readonly string[]): Promise<void> {
    this.calls.push(`release ${this.#named(ids)}`)
    await this.#write()
    await this.#inner.release(ids)
  }

  async cancel (id: string, reason: CancelReason, detail: string): Promise<CancelAnswer> {
    if (!this.#names.has(id)) return undefined
    this.calls.push(`cancel ${this.#named([id])} ${reason}`)
    await this.#write()
    return this.#inner.cancel(id, reason, detail)
  }

  async retry (ids: readonly string[], spacing: number): Promise<number> { return this.#inner.retry(ids, spacing) }
  async remove (ids: readonly string[]): Promise<number> { return this.#inner.remove(ids) }
  async get (id: string): Promise<JobRecord | undefined> { return this.#inner.get(id) }
  async list (query: JobQuery): Promise<JobRecord[]> { return this.#inner.list(query) }
  async counts (): Promise<Record<string, QueueCounts>> { return this.#inner.counts() }
  load (queue: string): Load { return this.#inner.load(queue) }
  watch (listener: (change: Change) => void): Awaitable<() => void> { return this.#inner.watch(listener) }

  async close (): Promise<void> {
    this.calls.push('close')
    await this.#inner.close()
  }

  async #write (): Promise<void> {
    await this.#gate?.promise
    await new Promise((resolve) => { setImmediate(resolve) })
    if (this.failure !== undefined) throw this.failure
  }

  #named (ids: readonly string[]): string {
    return ids.map((id) => this.#names.get(id) ?? id).join(', ')
  }
}
