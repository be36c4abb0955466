/**
 * Jobs by id, in the order of making: an array sorted by `order`, with holes where jobs left. A slot takes 8 bytes,
 * where a Map of ids takes 60, and no id has to be made for a job that nobody asks for.
 */
interface Indexed {
  readonly id: string
  readonly order: number
  /** Index in the array. Written here alone. */
  at: number
}

/** Holes that are not worth a tidying. */
const FEW = 1_000

export class ById<E extends Indexed> {
  #entries: Array<E | undefined> = []
  /** Everything before it is a hole. */
  #first = 0
  #holes = 0
  #highest = -Infinity

  add (entry: E): void {
    entry.at = this.#entries.push(entry) - 1
    if (entry.order > this.#highest) this.#highest = entry.order
    else this.#sortIn(entry)
  }

  delete (entry: E): void {
    this.#entries[entry.at] = undefined
    this.#holes++
    while (this.#first < this.#entries.length && this.#entries[this.#first] === undefined) this.#first++
    if (this.#holes > FEW && this.#holes > this.#entries.length / 4) this.#tidy()
  }

  get (id: string): E | undefined {
    const found = this.#entries[this.#seek(id)]
    return found?.id === id ? found : undefined
  }

  /** All of them, or those whose ids come after one. */
  * after (id: string | undefined): Generator<E> {
    for (let at = id === undefined ? this.#first : this.#seek(id); at < this.#entries.length; at++) {
      const entry = this.#entries[at]
      if (entry !== undefined && (id === undefined || entry.id > id)) yield entry
    }
  }

  /** The other way round: all of them, or those whose ids come before one. */
  * before (id: string | undefined): Generator<E> {
    for (let at = id === undefined ? this.#entries.length - 1 : this.#seek(id); at >= this.#first; at--) {
      const entry = this.#entries[at]
      if (entry !== undefined && (id === undefined || entry.id < id)) yield entry
    }
  }

  /** Index of the first entry that has this id or a higher one. */
  #seek (id: string): number {
    let low = this.#first
    let high = this.#entries.length
    while (low < high) {
      const middle = (low + high) >> 1
      let at = middle
      while (at > low && this.#entries[at] === undefined) at--
      const entry = this.#entries[at]
      if (entry === undefined || entry.id < id) low = middle + 1
      else high = at
    }
    return low
  }

  /** Many requests may have made their jobs before the first of them was written. */
  #sortIn (entry: E): void {
    for (let at = entry.at - 1; at >= this.#first; at--) {
      const before = this.#entries[at]
      if (before !== undefined && before.order <= entry.order) return
      this.#entries[at + 1] = before
      if (before !== undefined) before.at = at + 1
      this.#entries[at] = entry
      entry.at = at
    }
  }

  #tidy (): void {
    const entries = this.#entries
    let kept = 0
    for (let at = this.#first; at < entries.length; at++) {
      const entry = entries[at]
      if (entry === undefined) continue
      entry.at = kept
      entries[kept++] = entry
    }
    entries.length = kept
    this.#first = 0
    this.#holes = 0
  }
}
