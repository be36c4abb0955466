/** Lists of jobs linked through the jobs themselves: any of them can leave at once, and none leaves a hole. */
import { Heap, type HeapItem } from '../../heap.ts'

export interface Neighbours<E> {
  previous: E | undefined
  next: E | undefined
}

/** What a job lends to the list it is in. */
export interface Linked<E> extends Neighbours<E> {
  /** Monotonic ms at which it entered its state. */
  readonly since: number
  readonly priority: number
}

export class LinkedList<E extends Neighbours<E>> {
  first: E | undefined
  #last: E | undefined
  size = 0

  push (entry: E): void {
    entry.previous = this.#last
    entry.next = undefined
    if (this.#last === undefined) this.first = entry
    else this.#last.next = entry
    this.#last = entry
    this.size++
  }

  delete (entry: E): void {
    if (entry.previous === undefined) this.first = entry.next
    else entry.previous.next = entry.next
    if (entry.next === undefined) this.#last = entry.previous
    else entry.next.previous = entry.previous
    entry.previous = undefined
    entry.next = undefined
    this.size--
  }
}

class Level<E extends Linked<E>> extends LinkedList<E> implements HeapItem {
  readonly priority: number
  place = -1

  constructor (priority: number) {
    super()
    this.priority = priority
  }
}

/** The waiting jobs of a queue: higher priority first, then in the order of arrival. */
export class ReadyQueue<E extends Linked<E>> {
  readonly #levels = new Map<number, Level<E>>()
  readonly #order = new Heap<Level<E>>((a, b) => a.priority > b.priority)

  push (entry: E): void {
    let level = this.#levels.get(entry.priority)
    if (level === undefined) {
      level = new Level<E>(entry.priority)
      this.#levels.set(level.priority, level)
    }
    if (level.size === 0) this.#order.set(level)
    level.push(entry)
  }

  shift (): E | undefined {
    const entry = this.#order.first?.first
    if (entry !== undefined) this.delete(entry)
    return entry
  }

  delete (entry: E): void {
    const level = this.#levels.get(entry.priority) as Level<E>
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
export class Kept<E extends Linked<E>> {
  readonly #list = new LinkedList<E>()
  readonly #limit: { readonly count: number, readonly age: number }
  readonly #evict: (entry: E) => void

  constructor (limit: { readonly count: number, readonly age: number }, evict: (entry: E) => void) {
    this.#limit = limit
    this.#evict = evict
  }

  add (entry: E, now: number): void {
    this.#list.push(entry)
    this.sweep(now)
  }

  delete (entry: E): void {
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
