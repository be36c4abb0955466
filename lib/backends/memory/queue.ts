/** A queue in memory: its waiting jobs in order, its numbers, its limiter. */
import type { Load, QueueCounts, QueueSettings } from '../../backend.ts'
import type { Deadline } from '../../deadlines.ts'
import { MOVES, type JobState } from '../../job.ts'
import { Limiter } from '../limiter.ts'
import { ReadyQueue, type Linked } from './lists.ts'

/** A state of a queue's jobs. A job points to the one it is in, which costs less than its name in a table of counts. */
export class Standing<E extends Linked<E>> {
  readonly queue: Queue<E>
  readonly state: JobState
  /** The legal moves from here. */
  readonly next: readonly JobState[]
  jobs = 0

  constructor (queue: Queue<E>, state: JobState) {
    this.queue = queue
    this.state = state
    this.next = MOVES[state]
  }
}

export class Queue<E extends Linked<E>> implements Deadline {
  readonly name: string
  readonly ready = new ReadyQueue<E>()
  readonly limiter: Limiter | undefined
  readonly pending = new Standing<E>(this, 'pending')
  readonly waiting = new Standing<E>(this, 'waiting')
  readonly delayed = new Standing<E>(this, 'delayed')
  readonly active = new Standing<E>(this, 'active')
  readonly completed = new Standing<E>(this, 'completed')
  readonly failed = new Standing<E>(this, 'failed')
  readonly cancelled = new Standing<E>(this, 'cancelled')
  /** Of the delayed: those that wait for a retry. */
  retrying = 0
  /** What never started. */
  readonly load: Load = { jobs: 0, bytes: 0 }
  want = 0
  /** A pump is on its way. */
  stirred = false
  /** When the limiter lets the next job start. */
  due = 0
  place = -1

  constructor (name: string, { limiter }: QueueSettings) {
    this.name = name
    this.limiter = limiter === undefined ? undefined : new Limiter(limiter)
  }

  get hungry (): boolean { return this.active.jobs < this.want }

  /** When the limiter lets the next job start, if that is not now. */
  limitedUntil (now: number): number | undefined {
    const next = this.limiter === undefined ? -Infinity : this.limiter.next
    return next > now ? next : undefined
  }

  /** Waiting jobs that the limiter holds back are shown as delayed. */
  counts (now: number): QueueCounts {
    const limited = this.limitedUntil(now) === undefined ? 0 : this.waiting.jobs
    return {
      pending: this.pending.jobs,
      waiting: this.waiting.jobs - limited,
      delayed: this.delayed.jobs + limited,
      active: this.active.jobs,
      completed: this.completed.jobs,
      failed: this.failed.jobs,
      cancelled: this.cancelled.jobs,
      limited,
      retrying: this.retrying,
      oldestWaitingMs: Math.max(0, Math.round(now - Math.min(now, this.ready.oldest())))
    }
  }
}
