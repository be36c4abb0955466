/**
 * Group commit: what is asked for within one turn of the event loop is written in one transaction of the next.
 *
 * The store is `well`, `waiting` for another process to let go of the file, or `failing`: then what somebody waits for is
 * refused at once, what must not be lost (the ends of attempts, releases) is kept and tried again.
 */
import type { Clock, Timer } from '../../clock.ts'
import { isBusy } from './driver.ts'
import type { Transaction } from './transaction.ts'

interface Write {
  readonly act: (tx: Transaction) => unknown
  readonly kept: boolean
  readonly resolve: (answer: never) => void
  readonly reject: (error: unknown) => void
}

export interface CommitParts {
  readonly clock: Clock
  readonly exec: (sql: string) => void
  readonly begin: () => Transaction
  /** What rides along in every transaction. */
  readonly ride: (tx: Transaction) => void
  /** It is committed: tell. */
  readonly committed: (tx: Transaction) => void
  readonly failing: (error: unknown) => void
  readonly well: (awayMs: number) => void
}

/** Writes in one transaction. */
const BATCH = 200
/** Ms after which a transaction takes no further write: the event loop stands still meanwhile. */
const SLICE = 5
/** Ms after which a file that is locked all the time counts as a failure. */
const PATIENCE = 5_000
/** Ms before the next try of a failing store: the first, and the longest. */
const RETRY = 50
const LONGEST_RETRY = 2_000

export class Commits {
  readonly #parts: CommitParts
  #queue: Write[] = []
  #scheduled = false
  #timer: Timer | undefined
  #busySince: number | undefined
  #failingSince: number | undefined
  #retry = RETRY
  #closed = false

  constructor (parts: CommitParts) {
    this.#parts = parts
  }

  get failing (): boolean { return this.#failingSince !== undefined }

  /** `kept`: not refused while the store fails, but written when it is well again. */
  write<T> (act: (tx: Transaction) => T, kept = false): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(new Error('the store is closed'))
      this.#queue.push({ act, kept, resolve, reject })
      this.stir()
    })
  }

  /** A transaction is needed, if only for what rides along. */
  stir (): void {
    if (this.#scheduled || this.#closed || this.#busySince !== undefined) return
    this.#scheduled = true
    this.#parts.clock.soon(() => {
      this.#scheduled = false
      if (!this.#closed) this.#flush()
    })
  }

  /** Writes what is left, and nothing afterwards. What cannot be written any more is refused. */
  close (last: (tx: Transaction) => void): void {
    let error: unknown = new Error('the store is closed')
    try {
      while (this.#queue.length > 0) this.#transact(this.#queue.splice(0, BATCH))
      this.#transact([{ act: last, kept: true, resolve: () => {}, reject: (failure) => { error = failure } }])
    } catch (failure) {
      error = failure
    }
    this.#closed = true
    if (this.#timer !== undefined) this.#parts.clock.clearTimer(this.#timer)
    for (const write of this.#queue) write.reject(error)
    this.#queue = []
  }

  #flush (): void {
    const batch = this.#queue.splice(0, BATCH)
    try {
      this.#transact(batch)
      this.#isWell()
    } catch (error) {
      this.#failed(batch, error)
    }
    if (this.#queue.some((write) => !write.kept || !this.failing)) this.stir()
  }

  #transact (batch: readonly Write[]): void {
    const { clock, exec, begin, ride, committed } = this.#parts
    exec('BEGIN IMMEDIATE')
    const answers: unknown[] = []
    let tx: Transaction
    try {
      tx = begin()
      const latest = clock.monotonic() + SLICE
      for (const write of batch) {
        answers.push(write.act(tx))
        if (clock.monotonic() > latest) break
      }
      ride(tx)
      tx.sumUp()
      exec('COMMIT')
    } catch (error) {
      try {
        exec('ROLLBACK')
      } catch { /* some failures have rolled back already */ }
      throw error
    }
    const done = batch.slice(0, answers.length)
    for (const [at, write] of done.entries()) write.resolve(answers[at] as never)
    this.#queue.unshift(...batch.slice(done.length))
    committed(tx)
  }

  #failed (batch: Write[], error: unknown): void {
    const { clock } = this.#parts
    if (isBusy(error)) {
      const now = clock.monotonic()
      this.#busySince ??= now
      if (now - this.#busySince < PATIENCE) {
        this.#queue.unshift(...batch)
        return this.#later(1 + clock.random() * 4)
      }
    } else if (isOfTheWrite(error)) {
      return this.#oneByOne(batch, error)
    }
    this.#busySince = undefined
    if (this.#failingSince === undefined) {
      this.#failingSince = clock.monotonic()
      this.#parts.failing(error)
    }
    const refused = [...batch, ...this.#queue].filter(({ kept }) => !kept)
    this.#queue = [...batch, ...this.#queue].filter(({ kept }) => kept)
    for (const write of refused) write.reject(error)
    if (this.#timer !== undefined) return
    this.#later(this.#retry)
    this.#retry = Math.min(this.#retry * 2, LONGEST_RETRY)
  }

  /** One write of many cannot be done: the others must not suffer for it. */
  #oneByOne (batch: readonly Write[], error: unknown): void {
    if (batch.length === 1) return batch[0]?.reject(error)
    for (const write of batch) {
      try {
        this.#transact([write])
      } catch (failure) {
        this.#failed([write], failure)
      }
    }
  }

  #later (ms: number): void {
    if (this.#timer !== undefined) this.#parts.clock.clearTimer(this.#timer)
    this.#timer = this.#parts.clock.setTimer(() => {
      this.#timer = undefined
      this.#flush()
    }, ms)
    this.#timer.unref()
  }

  #isWell (): void {
    this.#busySince = undefined
    if (this.#failingSince === undefined) return
    const awayMs = this.#parts.clock.monotonic() - this.#failingSince
    this.#failingSince = undefined
    this.#retry = RETRY
    this.#parts.well(awayMs)
  }
}

/** The fault is in what was to be written, not in the store: a constraint, a value that is too large or cannot be bound. */
function isOfTheWrite (error: unknown): boolean {
  const { code, errcode } = error as { code?: unknown, errcode?: unknown }
  if (typeof errcode === 'number') return [18, 19, 20, 25].includes(errcode & 0xff)
  return typeof code !== 'string' || /^SQLITE_(TOOBIG|CONSTRAINT|MISMATCH|RANGE)/.test(code) || code.startsWith('ERR_INVALID_ARG')
}
