/** A queue in memory: its waiting jobs in order, its numbers, its limiter. */
import type { GroupSettings, Load, QueueCounts, QueueSettings, Tally } from '../../backend.ts'
import type { Deadline } from '../../deadlines.ts'
import { MOVES, type JobState } from '../../job.ts'
import { Limiter } from '../limiter.ts'
import { Groups, type Group, type Grouped } from './groups.ts'
import { ReadyQueue } from './lists.ts'

/** What a queue needs to know of a job. */
interface Queued<E extends Queued<E>> extends Grouped<E> {
  readonly job: { readonly name: string }
  readonly standing: Standing<E>
}

/** A state of a queue's jobs. A job points to the one it is in, which costs less than its name in a table of counts. */
export class Standing<E extends Queued<E>> {
  readonly queue: Queue<E>
  readonly state: JobState
  /** The legal moves from here. */
  readonly next: readonly JobState[]
  jobs = 0
  /** The same by task, from the first question on: until then nobody pays for it. */
  tasks: Map<string, number> | undefined

  constructor (queue: Queue<E>, state: JobState) {
    this.queue = queue
    this.state = state
    this.next = MOVES[state]
  }

  enter (entry: E): void {
    this.jobs++
    if (this.tasks !== undefined) this.countTask(entry, 1)
  }

  leave (entry: E): void {
    this.jobs--
    if (this.tasks !== undefined) this.countTask(entry, -1)
  }

  /** A function's name is anybody's: none stays here without jobs. */
  countTask ({ job: { name } }: E, more: 1 | -1): void {
    const sum = (this.tasks?.get(name) ?? 0) + more
    if (sum === 0) this.tasks?.delete(name)
    else this.tasks?.set(name, sum)
  }
}

const NO_LIMITS: GroupSettings = { concurrency: Infinity, limiter: undefined }

export class Queue<E extends Queued<E>> implements Deadline {
  readonly name: string
  /** Waiting jobs without a group. */
  readonly ready = new ReadyQueue<E>()
  /** From the first job of a group on. */
  groups: Groups<E> | undefined
  readonly limiter: Limiter | undefined
  readonly pending = new Standing<E>(this, 'pending')
  readonly waiting = new Standing<E>(this, 'waiting')
  readonly delayed = new Standing<E>(this, 'delayed')
  readonly 'waiting-children' = new Standing<E>(this, 'waiting-children')
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

  readonly #groupSettings: GroupSettings
  readonly #limit: (group: Group<E>, until: number) => void

  constructor (name: string, { limiter, groups = NO_LIMITS }: QueueSettings, limit: (group: Group<E>, until: number) => void) {
    this.name = name
    this.limiter = limiter === undefined ? undefined : new Limiter(limiter)
    this.#groupSettings = groups
    this.#limit = limit
  }

  push (entry: E, now: number): void {
    if (entry.group !== undefined) return this.groupsInTurn.push(entry, now)
    this.ready.push(entry)
    this.groups?.push(entry, now)
  }

  get groupsInTurn (): Groups<E> {
    return (this.groups ??= new Groups(this.name, this.ready, this.#groupSettings, this.#limit))
  }

  delete (entry: E): void {
    if (entry.group === undefined) this.ready.delete(entry)
    else this.groups?.delete(entry)
  }

  /** The next waiting job, taken out; none when their groups hold all of them back. */
  shift (): E | undefined {
    return this.groups === undefined ? this.ready.shift() : this.groups.shift()
  }

  get hungry (): boolean { return this.active.jobs < this.want }

  /** When the limiter lets the next job start, if that is not now. */
  limitedUntil (now: number): number | undefined {
    const next = this.limiter === undefined ? -Infinity : this.limiter.next
    return next > now ? next : undefined
  }

  /** The same for one waiting job, which its group's limiter may hold back too. */
  holdsUntil ({ group }: E, now: number): number | undefined {
    const until = this.limitedUntil(now)
    const own = group === undefined ? undefined : this.groups?.limitedUntil(group, now)
    return until === undefined || own === undefined ? until ?? own : Math.max(until, own)
  }

  /** Waiting jobs that the limiter holds back are shown as delayed. */
  counts (now: number): QueueCounts {
    const limited = this.limitedUntil(now) === undefined ? this.groups?.limited(now) ?? 0 : this.waiting.jobs
    return {
      pending: this.pending.jobs,
      waiting: this.waiting.jobs - limited,
      delayed: this.delayed.jobs + limited,
      'waiting-children': this['waiting-children'].jobs,
      active: this.active.jobs,
      completed: this.completed.jobs,
      failed: this.failed.jobs,
      cancelled: this.cancelled.jobs,
      limited,
      retrying: this.retrying,
      oldestWaitingMs: Math.max(0, Math.round(now - Math.min(now, this.ready.oldest(), this.groups?.oldest() ?? now)))
    }
  }
  /** `kept`: its jobs, to be counted at the first question. */
  tally (kept: () => Iterable<E>, now: number): Tally[] {
    const standings = [this.pending, this.waiting, this.delayed, this['waiting-children'], this.active, this.completed, this.failed, this.cancelled]
    if (this.waiting.tasks === undefined) {
      for (const standing of standings) standing.tasks = new Map()
      for (const entry of kept()) if (entry.standing.queue === this) entry.standing.countTask(entry, 1)
    }
    return standings.flatMap(({ state, tasks = [] }) => {
      const shown = state === 'waiting' && this.limitedUntil(now) !== undefined ? 'delayed' : state
      return Array.from(tasks, ([task, jobs]) => ({ queue: this.name, task, state: shown, jobs }))
    })
  }
}
