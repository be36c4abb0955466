/** A binary heap whose items know their place in it, so that any of them can be taken out or moved. */

export interface HeapItem {
  /** Index in the heap; −1 while the item is in none. Written by the heap alone. */
  place: number
}

export class Heap<T extends HeapItem> {
  readonly #items: T[] = []
  readonly #before: (a: T, b: T) => boolean

  constructor (before: (a: T, b: T) => boolean) {
    this.#before = before
  }

  get size (): number { return this.#items.length }
  get first (): T | undefined { return this.#items[0] }

  [Symbol.iterator] (): Iterator<T> { return this.#items[Symbol.iterator]() }

  /** Adds the item, or finds its place again after its order changed. */
  set (item: T): void {
    if (item.place === -1) item.place = this.#items.push(item) - 1
    this.#sink(this.#rise(item))
  }

  delete (item: T): void {
    if (item.place === -1) return
    const last = this.#items.pop() as T
    if (last !== item) {
      last.place = item.place
      this.#items[last.place] = last
      this.#sink(this.#rise(last))
    }
    item.place = -1
  }

  clear (): void {
    for (const item of this.#items) item.place = -1
    this.#items.length = 0
  }

  #rise (item: T): T {
    while (item.place > 0) {
      const parent = this.#items[(item.place - 1) >> 1] as T
      if (!this.#before(item, parent)) break
      this.#swap(item, parent)
    }
    return item
  }

  #sink (item: T): void {
    for (;;) {
      const left = this.#items[item.place * 2 + 1]
      if (left === undefined) return
      const right = this.#items[item.place * 2 + 2]
      const child = right !== undefined && this.#before(right, left) ? right : left
      if (!this.#before(child, item)) return
      this.#swap(child, item)
    }
  }

  #swap (a: T, b: T): void {
    const place = a.place
    a.place = b.place
    b.place = place
    this.#items[a.place] = a
    this.#items[b.place] = b
  }
}
