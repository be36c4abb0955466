/**
 * What is told between processes: changes of jobs by BullMQ's streams of events, one for each queue, read only while
 * somebody watches; and the cancelling of a running job through the stream of the control queue, read by each process
 * that works.
 */
import type { Change } from '../../backend.ts'
import type { Clock, Timer } from '../../clock.ts'
import type { CancelReason, JobState } from '../../job.ts'
import { plainText } from './codec.ts'
import { CONTROL, type Connections, type StoreEvents, type StoreQueue } from './connections.ts'

/** Events kept in a stream of Redis, as BullMQ does. */
const KEPT = 10_000
const MARK = 'background-mark'
const CANCEL = 'background-cancel'
const CANCELLED = 'background-cancelled'
const SCHEDULED = 'background-scheduled'
/** BullMQ has no state for it: such a job fails with this text, and is removed. */
const CANCELLED_TEXT = /^fastify-background-tasks: cancelled \((\w[\w-]*)\)$/

export function cancelledText (reason: CancelReason): string {
  return `fastify-background-tasks: cancelled (${reason})`
}

/** Ms that streams stay open when nobody watches any more: waits for single jobs come one after the other. */
const LINGER = 30_000

const CHANGES: Readonly<Record<string, JobState>> = {
  waiting: 'waiting',
  delayed: 'delayed',
  active: 'active',
  'waiting-children': 'waiting-children',
  completed: 'completed',
  failed: 'failed',
  [CANCELLED]: 'cancelled'
}

/** Resolves to the id of an event that stands before all later ones. */
function mark (queue: StoreQueue): Promise<string> {
  return queue.getBackend().publishEvent({ event: MARK }, KEPT)
}

export class Events {
  readonly #clock: Clock
  readonly #connections: Connections
  readonly #queues: ReadonlyMap<string, StoreQueue>
  /** Whether this process has staged the job and not released it: then it is no news that it is delayed. */
  readonly #isStaged: (id: string) => boolean
  readonly #listeners = new Set<(change: Change) => void>()
  #streams: Promise<StoreEvents[]> | undefined
  #lingering: Timer | undefined

  constructor (clock: Clock, connections: Connections, queues: ReadonlyMap<string, StoreQueue>, isStaged: (id: string) => boolean) {
    this.#clock = clock
    this.#connections = connections
    this.#queues = queues
    this.#isStaged = isStaged
  }

  /** Resolves to how to stop, when every later change is going to be told. */
  async watch (listener: (change: Change) => void): Promise<() => void> {
    this.#listeners.add(listener)
    this.#stay()
    try {
      await (this.#streams ??= this.#open())
    } catch (error) {
      this.#listeners.delete(listener)
      this.#streams = undefined
      throw error
    }
    return () => {
      this.#listeners.delete(listener)
      if (this.#listeners.size > 0 || this.#lingering !== undefined) return
      this.#lingering = this.#clock.setTimer(() => { this.#close() }, LINGER)
      this.#lingering.unref()
    }
  }

  close (): void {
    this.#listeners.clear()
    this.#stay()
  }

  /** Calls `cancel` when another process wants a job to be cancelled that may run here, `scheduled` when there are schedules. */
  async listen (cancel: (id: string, detail: string) => void, scheduled: () => void): Promise<void> {
    const events = this.#connections.events(CONTROL, await mark(this.#connections.control))
    events.on(CANCEL as 'waiting', ({ jobId, detail }: { jobId: string, detail?: string }) => { cancel(jobId, detail ?? '') })
    events.on(SCHEDULED as 'drained', scheduled)
  }

  async tellScheduled (): Promise<void> {
    await this.#connections.control.getBackend().publishEvent({ event: SCHEDULED }, KEPT)
  }

  async askToCancel (id: string, detail: string): Promise<void> {
    await this.#connections.control.getBackend().publishEvent({ event: CANCEL, jobId: id, detail: plainText(detail) }, KEPT)
  }

  /** A job was taken out before it ran. PostgreSQL does not tell that itself. */
  async tellCancelled (queue: StoreQueue, id: string): Promise<void> {
    await queue.getBackend().publishEvent({ event: CANCELLED, jobId: id }, KEPT)
  }

  async #open (): Promise<StoreEvents[]> {
    const marks = await Promise.all([...this.#queues].map(async ([name, queue]) => [name, await mark(queue)] as const))
    return marks.map(([name, id]) => {
      const events = this.#connections.events(name, id)
      for (const event of Object.keys(CHANGES)) {
        events.on(event as 'failed', ({ jobId, failedReason }) => { this.#tell(event, jobId, failedReason) })
      }
      return events
    })
  }

  #stay (): void {
    if (this.#lingering !== undefined) this.#clock.clearTimer(this.#lingering)
    this.#lingering = undefined
  }

  #close (): void {
    this.#lingering = undefined
    const streams = this.#streams
    this.#streams = undefined
    streams?.then((all) => Promise.all(all.map((events) => this.#connections.close(events)))).catch(() => {})
  }

  #tell (event: string, id: string, failedReason: string | undefined): void {
    if (event === 'delayed' && this.#isStaged(id)) return
    const state = CANCELLED_TEXT.test(failedReason ?? '') ? 'cancelled' : CHANGES[event] as JobState
    for (const listener of this.#listeners) listener({ id, state })
  }
}
