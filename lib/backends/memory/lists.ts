/** Lists of entries linked through the entries themselves: any of them can leave at once, and none leaves a hole. */
import { Heap, type HeapItem } from '../../heap.ts'
import type { Entry } from './entry.ts'

export class EntryList {
  first: Entry | undefined
  #last: Entry | undefined
  size = 0

  push (entry: Entry): void {
    entry.previous = this.#last
    entry.next = undefined
    if (this.#last === undefined) this.first = entry
    else this.#last.next = entry
    this.#last = entry
    this.size++
  }

  delete (entry: Entry): void {
    if (entry.previous === undefined) this.first = entry.next
    else entry.previous.next = entry.next
    if (entry.next === undefined) this.#last = entry.previous
    else entry.next.previous = entry.previous
    entry.previous = undefined
    entry.next = undefined
    this.size--
  }
}

class Level extends EntryList implements HeapItem {
  readonly priority: number
  place = -1

  constructor (priority: number) {
    super()
    this.priority = priority
  }
}

/** The waiting jobs of a queue: higher priority first, then in the order of arrival. */
export class ReadyQueue {
  readonly #levels = new Map<number, Level>()
  readonly #order = new Heap<Level>((a, b) => a.priority > b.priority)

  push (entry: Entry): void {
    let level = this.#levels.get(entry.job.priority)
    if (level === undefined) {
      level = new Level(entry.job.priority)
      this.#levels.set(level.priority, level)
    }
    if (level.size === 0) this.#order.set(level)
    level.push(entry)
  }

  shift (): Entry | undefined {
    const entry = this.#order.first?.first
    if (entry !== undefined) this.delete(entry)
    return entry
  }

  delete (entry: Entry): void {
    const level = this.#levels.get(entry.job.priority) as Level
    level.delete(entry)
    if (level.size > 0) return
    this.#order.delete(level)
    // The level of priority 0 is nearly always needed again at once.
    if (level.priority !== 0) this.#levels.delete(level.priority)
  }

  /** Since when the longest waiting job is ready; Infinity when none waits. */
  oldest (): number {
    let oldest = Infinity
    for (const level of this.#order) oldest = Math.min(oldest, level.first?.since ?? Infinity)
    return oldest
  }
}

/** Ended jobs, the oldest end first, bounded by count and age. */
export class Kept {
  readonly #list = new EntryList()
  readonly #limit: { readonly count: number, readonly age: number }
  readonly #evict: (entry: Entry) => void

  constructor (limit: { readonly count: number, readonly age: number }, evict: (entry: Entry) => void) {
    this.#limit = limit
    this.#evict = evict
  }

  add (entry: Entry, now: number): void {
    this.#list.push(entry)
    this.sweep(now)
  }

  delete (entry: Entry): void {
    this.#list.delete(entry)
  }

  sweep (now: number): void {
    for (let entry = this.#list.first; entry !== undefined; entry = this.#list.first) {
      if (this.#list.size <= this.#limit.count && now - entry.since <= this.#limit.age) return
      this.#list.delete(entry)
      this.#evict(entry)
    }
  }
}
