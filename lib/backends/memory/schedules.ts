/** Schedules in memory: by the time they are looked at next, on one timer. They keep the process alive, as delayed jobs do. */
import type { Duplicates, ScheduleStore, Sink } from '../../backend.ts'
import type { Clock, Timer } from '../../clock.ts'
import { Heap, type HeapItem } from '../../heap.ts'
import type { NewJob } from '../../job.ts'
import { cloneJson } from '../../json.ts'
import { ASK_AGAIN, LONGEST_WAIT, timingOf, type Fire, type KeptSchedule, type Overlap, type Schedule } from '../../schedule.ts'

/** Fired in one turn of the loop. */
const BATCH = 100

interface Item extends HeapItem {
  kept: KeptSchedule
  /** Wall time, ms. */
  look: number
}

export interface MemorySchedulesParts {
  readonly clock: Clock
  readonly sink: Sink
  readonly fire: Fire
  readonly isAlive: (id: string) => boolean
  readonly add: (job: NewJob) => Duplicates | undefined
}

export class MemorySchedules implements ScheduleStore {
  readonly overlaps: readonly Overlap[] = ['skip', 'queue', 'allow']
  readonly #items = new Map<string, Item>()
  readonly #order = new Heap<Item>((a, b) => a.look < b.look)
  #parts: MemorySchedulesParts | undefined
  #timer: Timer | undefined
  #rang = -Infinity

  start (parts: MemorySchedulesParts): void {
    this.#parts = parts
    this.#arm()
  }

  close (): void {
    this.#disarm()
    this.#parts = undefined
  }

  put (schedule: Schedule, next: number | undefined): void {
    const before = this.#items.get(schedule.id)
    if (before !== undefined && timingOf(before.kept.rule) === timingOf(schedule.rule)) before.kept = { ...before.kept, ...schedule }
    else if (next === undefined) this.remove(schedule.id)
    else this.#set(before, { ...schedule, next, count: 0, lastJobId: null, lastAt: null })
    this.#arm()
  }

  remove (id: string): boolean {
    const item = this.#items.get(id)
    if (item === undefined) return false
    this.#items.delete(id)
    this.#order.delete(item)
    this.#arm()
    return true
  }

  list (): KeptSchedule[] {
    const all = [...this.#items.values()].map(({ kept }) => ({ ...kept, payload: cloneJson(kept.payload) }))
    return all.sort((a, b) => a.id < b.id ? -1 : 1)
  }

  #set (before: Item | undefined, kept: KeptSchedule): void {
    const item = before ?? { kept, look: 0, place: -1 }
    item.kept = kept
    item.look = kept.next
    this.#items.set(kept.id, item)
    this.#order.set(item)
  }

  #arm (): void {
    this.#disarm()
    const first = this.#order.first
    if (first === undefined || this.#parts === undefined) return
    const { clock } = this.#parts
    this.#timer = clock.setTimer(() => { this.#ring() }, Math.min(Math.max(first.look - clock.now(), 0), LONGEST_WAIT))
  }

  #disarm (): void {
    if (this.#timer !== undefined) this.#parts?.clock.clearTimer(this.#timer)
    this.#timer = undefined
  }

  #ring (): void {
    const wall = this.#parts?.clock.now() ?? -Infinity
    if (wall < this.#rang) this.#lookAnew()
    this.#rang = wall
    for (let n = 0; n < BATCH; n++) {
      const first = this.#order.first
      const now = this.#parts?.clock.now() ?? -Infinity
      if (first === undefined || first.look > now) break
      this.#fire(first, now)
    }
    this.#arm()
  }

  /** The clock was set back: what was to be asked again in a second would have to wait for all that time. */
  #lookAnew (): void {
    for (const item of this.#items.values()) {
      item.look = item.kept.next
      this.#order.set(item)
    }
  }

  #fire (item: Item, now: number): void {
    const { kept } = item
    const { sink, fire, isAlive, add } = this.#parts as MemorySchedulesParts
    const firing = fire(kept, kept.lastJobId !== null && isAlive(kept.lastJobId))
    if (firing === undefined) {
      item.look = now + ASK_AGAIN
      this.#order.set(item)
      return
    }
    const { job, next, skipped } = firing
    if (next === undefined) this.remove(kept.id)
    else this.#set(item, { ...kept, next, count: kept.count + 1, ...(job && { lastJobId: job.id, lastAt: now }) })
    if (job !== undefined && add(job)?.has(job.id) !== true) sink.report({ kind: 'fired', job })
    if (skipped !== undefined) sink.report({ kind: 'skipped', schedule: kept, why: skipped })
  }
}
