/** The logger of a handler. A job that floods the log is cut short: what it says beyond the limit is counted into one line. */
import type { FastifyBaseLogger } from 'fastify'
import type { Clock } from '../clock.ts'

/** Lines of one attempt in one second. */
const MOST = 1_000
const SECOND = 1_000
const LEVELS: ReadonlySet<unknown> = new Set(['fatal', 'error', 'warn', 'info', 'debug', 'trace'])

class LineCount {
  readonly #clock: Clock
  readonly #log: FastifyBaseLogger
  #since: number
  #lines = 0

  constructor (clock: Clock, log: FastifyBaseLogger) {
    this.#clock = clock
    this.#log = log
    this.#since = clock.monotonic()
  }

  /** Whether one more line may go out. */
  admits (): boolean {
    const now = this.#clock.monotonic()
    if (now - this.#since >= SECOND) {
      this.tellRest()
      this.#since = now
      this.#lines = 0
    }
    return ++this.#lines <= MOST
  }

  /** Says how many lines did not. */
  tellRest (): void {
    const count = this.#lines - MOST
    if (count <= 0) return
    this.#lines = 0
    this.#log.warn({ count }, `the job logs more than ${MOST} lines a second: the others were left out`)
  }
}

export interface JobLog {
  readonly log: FastifyBaseLogger
  /** To be called at the end of the attempt. */
  readonly end: () => void
}

export function limitLog (log: FastifyBaseLogger, clock: Clock): JobLog {
  const lines = new LineCount(clock, log)
  return { log: limited(log, lines), end: () => { lines.tellRest() } }
}

/** Children of the logger share the limit: a line more is a line more. */
function limited (log: FastifyBaseLogger, lines: LineCount): FastifyBaseLogger {
  // Not the logger itself stands behind it: a proxy must not answer other than a frozen one does.
  return new Proxy(Object.create(log) as FastifyBaseLogger, {
    get (_, key) {
      const value: unknown = Reflect.get(log, key)
      if (typeof value !== 'function') return value
      if (key === 'child') return (...options: Parameters<FastifyBaseLogger['child']>) => limited(log.child(...options), lines)
      if (!LEVELS.has(key)) return value.bind(log)
      return (...said: unknown[]) => { if (lines.admits()) (value as (...said: unknown[]) => void).apply(log, said) }
    },
    set: (_, key, value) => Reflect.set(log, key, value)
  })
}
