/**
 * The waiting jobs of a queue that has groups: those that may start one stand in a row, the first gives its next job and
 * goes to the end. Jobs without a group take turns as if they were one. A queue that never saw a group has none of this.
 */
import type { GroupSettings } from '../../backend.ts'
import type { Deadline } from '../../deadlines.ts'
import { Limiter, type Start } from '../limiter.ts'
import { LinkedList, ReadyQueue, type Linked, type Neighbours } from './lists.ts'

/** What a group needs to know of a job. */
export interface Grouped<E> extends Linked<E> {
  readonly group: string | undefined
}

export class Group<E extends Grouped<E>> implements Deadline, Neighbours<Group<E>> {
  /** The name of its queue. */
  readonly queue: string
  readonly ready: ReadyQueue<E>
  readonly limiter: Limiter | undefined
  waiting = 0
  /** Attempts delivered and not settled. */
  active = 0
  /** Whether it stands in the row. */
  stands = false
  previous: Group<E> | undefined
  next: Group<E> | undefined
  due = 0
  place = -1

  constructor (queue: string, ready: ReadyQueue<E>, limiter: Limiter | undefined) {
    this.queue = queue
    this.ready = ready
    this.limiter = limiter
  }

  /** When its limiter lets the next job start, if that is not now. */
  limitedUntil (now: number): number | undefined {
    const next = this.limiter?.next ?? -Infinity
    return next > now ? next : undefined
  }
}

/** Groups below which it is not worth looking for idle ones. */
const FEW = 100

export class Groups<E extends Grouped<E>> {
  readonly #queue: string
  readonly #settings: GroupSettings
  readonly #limit: (group: Group<E>, until: number) => void
  readonly #groups = new Map<string, Group<E>>()
  readonly #row = new LinkedList<Group<E>>()
  /** Jobs without a group. */
  readonly #rest: Group<E>
  #sweepAt = FEW

  /** `rest`: the jobs without a group. `limit`: `reach` is to be called at that time. */
  constructor (queue: string, rest: ReadyQueue<E>, settings: GroupSettings, limit: (group: Group<E>, until: number) => void) {
    this.#queue = queue
    this.#settings = settings
    this.#limit = limit
    this.#rest = new Group(queue, rest, undefined)
    this.#stand(this.#rest)
  }

  push (entry: E, now: number): void {
    if (entry.group === undefined) return this.#stand(this.#rest)
    const group = this.#groupOf(entry.group, now)
    group.ready.push(entry)
    group.waiting++
    this.#settle(group, now)
  }

  delete (entry: E): void {
    const group = this.#groups.get(entry.group as string) as Group<E>
    group.ready.delete(entry)
    group.waiting--
    if (group.waiting === 0) this.#leave(group)
  }

  /** The next job in turn, taken out; none when their groups hold back all that wait. */
  shift (): E | undefined {
    for (let group = this.#row.first; group !== undefined; group = this.#row.first) {
      this.#leave(group)
      const entry = group.ready.shift()
      if (entry === undefined) continue // the rest had none
      if (group === this.#rest) this.#stand(group)
      else if (--group.waiting > 0) this.#stand(group)
      return entry
    }
    return undefined
  }

  /** An attempt begins. Answers its start in the group's limiter. */
  begun (id: string, now: number): Start | undefined {
    const group = this.#groupOf(id, now)
    group.active++
    const granted = group.limiter?.grant()
    this.#settle(group, now)
    return granted
  }

  /** The granted start has happened. */
  started (id: string, now: number): void {
    this.#settle(this.#groupOf(id, now), now)
  }

  /** An attempt ends. `granted`: given where it never started. */
  ended (id: string, now: number, granted: Start | undefined): void {
    const group = this.#groupOf(id, now)
    group.active--
    if (granted !== undefined) group.limiter?.takeBack(granted)
    this.#settle(group, now)
  }

  /** Its limiter lets it start again. */
  reach (group: Group<E>, now: number): void {
    this.#settle(group, now)
  }

  limitedUntil (id: string, now: number): number | undefined {
    return this.#groups.get(id)?.limitedUntil(now)
  }

  /** Waiting jobs that limiters of groups hold back. */
  limited (now: number): number {
    let limited = 0
    for (const group of this.#groups.values()) if (group.limitedUntil(now) !== undefined) limited += group.waiting
    return limited
  }

  /** Since when the longest waiting job of a group is ready; Infinity when none waits. */
  oldest (): number {
    let oldest = Infinity
    for (const { ready } of this.#groups.values()) oldest = Math.min(oldest, ready.oldest())
    return oldest
  }

  /** A group stands in the row while it has a job that may start. */
  #settle (group: Group<E>, now: number): void {
    const until = group.limitedUntil(now)
    const mayStart = group.waiting > 0 && group.active < this.#settings.concurrency && until === undefined
    if (!mayStart) this.#leave(group)
    else this.#stand(group)
    if (group.waiting > 0 && until !== undefined && until < Infinity) this.#limit(group, until)
  }

  #stand (group: Group<E>): void {
    if (group.stands) return
    group.stands = true
    this.#row.push(group)
  }

  #leave (group: Group<E>): void {
    if (!group.stands) return
    group.stands = false
    this.#row.delete(group)
  }

  #groupOf (id: string, now: number): Group<E> {
    let group = this.#groups.get(id)
    if (group === undefined) {
      if (this.#groups.size >= this.#sweepAt) this.#sweep(now)
      const { limiter } = this.#settings
      group = new Group(this.#queue, new ReadyQueue<E>(), limiter && new Limiter(limiter))
      this.#groups.set(id, group)
    }
    return group
  }

  /** Forgets groups that have no job, and no start that counts. */
  #sweep (now: number): void {
    for (const [id, group] of this.#groups) {
      if (group.waiting === 0 && group.active === 0 && (group.limiter?.isFree(now) ?? true)) this.#groups.delete(id)
    }
    this.#sweepAt = FEW + 2 * this.#groups.size
  }
}
