/**
 * Whether the store can be reached. Calls to it are bounded; what must not be lost is tried again until the store takes
 * it. From the first call that fails until a probe succeeds the store is away: one probe a second finds out when it is
 * back, and nothing else asks it meanwhile on its own account.
 */
import type { Clock, Timer } from '../../clock.ts'
import { Deadlines, type Deadline } from '../../deadlines.ts'
import { describe, peek, type ErrorFacts } from '../../describe.ts'
import { errors } from '../../errors.ts'

/** Ms between two looks for a store that is away. */
const PROBE = 1_000

interface Call extends Deadline {
  /** It may take. */
  readonly ms: number
  readonly cut: (error: Error) => void
}

export interface ReachParts {
  readonly clock: Clock
  /** Ms. */
  readonly callTimeout: number
  /** A cheap question. */
  readonly probe: () => Promise<unknown>
  /** Told once each time. */
  readonly lost: (error: ErrorFacts) => void
  readonly back: (awayMs: number) => void
}

export class Reach {
  readonly #parts: ReachParts
  #awaySince: number | undefined
  #timer: Timer | undefined
  #closed = false
  readonly #waiting = new Set<() => void>()
  /** Those that have no answer yet. */
  readonly #calls = new Set<Call>()
  readonly #deadlines: Deadlines<Call>

  constructor (parts: ReachParts) {
    this.#parts = parts
    this.#deadlines = new Deadlines(parts.clock, (call) => { call.cut(new errors.Timeout('a call to the store', call.ms)) })
  }

  get away (): boolean { return this.#awaySince !== undefined }

  /**
   * Waits `ms` at most. `tooLate` is told what the store answered after nobody waited any more.
   * @throws FST_BG_STORE_UNAVAILABLE, FST_BG_CLOSING, FST_BG_NOT_STORABLE, what the store refused it with
   */
  bounded<T> (ask: () => Promise<T>, tooLate?: (answer: T) => void, ms = this.#parts.callTimeout): Promise<T> {
    if (this.#closed) return Promise.reject(new errors.Closing())
    return new Promise((resolve, reject) => {
      const cut = (error: Error): void => {
        if (!this.#end(call)) return
        if (isAboutData(error)) reject(new errors.NotStorable(describe(error).message))
        else reject(isRefusal(error) || this.#closed ? error : this.lose(error))
      }
      const call: Call = { place: -1, due: 0, ms, cut }
      this.#calls.add(call)
      this.#deadlines.set(call, this.#parts.clock.monotonic() + ms)
      const asked = new Promise<T>((answer) => { answer(ask()) })
      asked.then((answer) => {
        if (this.#end(call)) resolve(answer)
        else tooLate?.(answer)
      }, cut)
    })
  }

  /** For numbers that are asked for every few seconds: whoever looks after a service gets an answer in time. @throws as `bounded` */
  unlessAway<T> (ask: () => Promise<T>): Promise<T> {
    return this.away ? Promise.reject(new errors.StoreUnavailable()) : this.bounded(ask)
  }

  /** Until the store has taken or refused it. @throws FST_BG_CLOSING, what the store refused it with */
  async persist<T> (store: () => Promise<T>): Promise<T> {
    for (;;) {
      if (this.#closed) throw new errors.Closing()
      try {
        return await store()
      } catch (error) {
        if (isRefusal(error)) throw error
        this.lose(error)
        await new Promise<void>((resolve) => { this.#waiting.add(resolve) })
      }
    }
  }

  /** A call failed, or a connection did. Answers what to tell of it. */
  lose (error: unknown): Error {
    const facts = withoutSecrets(describe(error))
    if (!this.#closed && this.#awaySince === undefined) {
      this.#awaySince = this.#parts.clock.monotonic()
      this.#parts.lost(facts)
      this.#look(PROBE / 10)
    }
    return Object.assign(new errors.StoreUnavailable(), { cause: facts })
  }

  close (): void {
    this.#closed = true
    if (this.#timer !== undefined) this.#parts.clock.clearTimer(this.#timer)
    this.#wake()
    // A connection that is closed may never answer.
    for (const { cut } of this.#calls) cut(new errors.Closing())
    this.#deadlines.close()
  }

  /** Whether it was not over before. */
  #end (call: Call): boolean {
    this.#deadlines.delete(call)
    return this.#calls.delete(call)
  }

  #look (ms: number): void {
    this.#timer = this.#parts.clock.setTimer(() => { void this.#probe() }, ms)
    this.#timer.unref()
  }

  async #probe (): Promise<void> {
    try {
      await this.bounded(this.#parts.probe)
    } catch {
      if (!this.#closed) this.#look(PROBE)
      return
    }
    const since = this.#awaySince
    if (this.#closed || since === undefined) return
    this.#awaySince = undefined
    this.#parts.back(this.#parts.clock.monotonic() - since)
    this.#wake()
  }

  #wake (): void {
    for (const resolve of this.#waiting) resolve()
    this.#waiting.clear()
  }
}

/** What a worker of BullMQ says of a lock that is no longer its own, without a code. */
const LOCK_LOST = /^could not renew lock/

/** What is thrown over an answer that nobody can read, here and in BullMQ's scripts: somebody else wrote into the store. */
const UNREADABLE = /^(Type|Range|Syntax)Error$/
const BROKEN = /^(WRONGTYPE|ERR (user_script|Error running script))\b/

/**
 * The store answered, and the answer is no: BullMQ's own codes are negative numbers, and SQL's class 23 is about other rows.
 * Or it makes no sense, and would make none if it were asked again.
 */
export function isRefusal (error: unknown): boolean {
  const code = peek(error, 'code')
  if (typeof code === 'number') return code < 0
  if (isAboutData(error) || isOfClass('23', code)) return true
  const { name, message } = describe(error)
  return LOCK_LOST.test(message) || BROKEN.test(message) || (code === undefined && UNREADABLE.test(name))
}

/** False when BullMQ refuses the change of a job: it is no longer where it was. */
export async function isDone (change: () => Promise<unknown>): Promise<boolean> {
  try {
    await change()
    return true
  } catch (error) {
    const code = peek(error, 'code')
    if (typeof code === 'number' && code < 0) return false
    throw error
  }
}

/** It would be refused as often as it is asked: PostgreSQL's JSON has no U+0000, and no half of a surrogate pair. */
export function isAboutData (error: unknown): boolean {
  return isOfClass('22', peek(error, 'code'))
}

/** Of SQL's states, which begin with two letters for their class. */
export function isOfClass (sql: string, code: unknown): boolean {
  return typeof code === 'string' && code.length === 5 && code.startsWith(sql)
}

/** Resolves when the work is over or after `ms`, and then calls `late`. Never rejects. */
export async function within (clock: Clock, ms: number, work: Promise<unknown>, late?: () => void): Promise<void> {
  let stop: (() => void) | undefined
  const timer = clock.setTimer(() => {
    late?.()
    stop?.()
  }, ms)
  await Promise.race([work.catch(() => {}), new Promise<void>((resolve) => { stop = resolve })])
  clock.clearTimer(timer)
}

function withoutSecrets (facts: ErrorFacts): ErrorFacts {
  const clean = (text: string): string => text.replace(/\/\/[^\s/@]*@/g, '//')
  const { stack, cause, ...rest } = facts
  return {
    ...rest,
    message: clean(facts.message),
    ...(stack !== undefined ? { stack: clean(stack) } : undefined),
    ...(cause !== undefined ? { cause: withoutSecrets(cause) } : undefined)
  }
}
