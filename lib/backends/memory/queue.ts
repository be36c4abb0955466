/** A queue in memory: its waiting jobs in order, its numbers, its limiter. */
import type { Load, QueueCounts, QueueSettings } from '../../backend.ts'
import type { Deadline } from '../../deadlines.ts'
import type { JobState } from '../../job.ts'
import { Limiter } from '../limiter.ts'
import { ReadyQueue, type Linked } from './lists.ts'

export class Queue<E extends Linked<E>> implements Deadline {
  readonly name: string
  readonly ready = new ReadyQueue<E>()
  readonly limiter: Limiter | undefined
  readonly states: Record<JobState, number> = {
    pending: 0, waiting: 0, delayed: 0, 'waiting-children': 0, active: 0, completed: 0, failed: 0, cancelled: 0
  }

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

  get hungry (): boolean { return this.states.active < this.want }

  /** When the limiter lets the next job start, if that is not now. */
  limitedUntil (now: number): number | undefined {
    const next = this.limiter === undefined ? -Infinity : this.limiter.next
    return next > now ? next : undefined
  }

  /** Waiting jobs that the limiter holds back are shown as delayed. */
  counts (now: number): QueueCounts {
    const { 'waiting-children': _, ...states } = this.states
    const limited = this.limitedUntil(now) === undefined ? 0 : states.waiting
    return {
      ...states,
      waiting: states.waiting - limited,
      delayed: states.delayed + limited,
      limited,
      retrying: this.retrying,
      oldestWaitingMs: Math.max(0, Math.round(now - Math.min(now, this.ready.oldest())))
    }
  }
}
