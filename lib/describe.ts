/**
 * Any thrown value as plain data. Total: it never throws and its answer is small. Loggers are given only this,
 * because serializing a hostile error throws (frozen errors, throwing getters, proxies) or blocks (huge messages).
 */
import { types } from 'node:util'

/** A thrown value as plain data, cut to a bounded size. */
export interface ErrorFacts {
  name: string
  code: string | null
  message: string
  stack?: string
  cause?: ErrorFacts
}

const LONGEST = 4_096
const DEEPEST = 5

export function describe (thrown: unknown): ErrorFacts {
  return describeTo(DEEPEST, thrown, new Set())
}

/** A copy for whoever reads a record. (Frozen facts would do, but pino writes a tag into what it logs.) */
export function copyFacts ({ cause, ...facts }: ErrorFacts): ErrorFacts {
  const copy = Object.assign(Object.create(null) as object, facts)
  return cause === undefined ? copy : Object.assign(copy, { cause: copyFacts(cause) })
}

/** Reads a property of a value nobody vouches for. */
export function peek (value: unknown, key: PropertyKey): unknown {
  if ((typeof value !== 'object' || value === null) && typeof value !== 'function') return undefined
  try {
    return (value as Record<PropertyKey, unknown>)[key]
  } catch {
    return undefined
  }
}

function describeTo (depth: number, thrown: unknown, seen: Set<unknown>): ErrorFacts {
  const facts = Object.create(null) as ErrorFacts // no constructor: pino then takes the type from `name`
  facts.name = text(peek(thrown, 'name')) ?? 'Error'
  facts.code = codeOf(thrown)
  facts.message = text(peek(thrown, 'message')) ?? nameless(thrown)
  const stack = text(peek(thrown, 'stack'))
  if (stack !== undefined) facts.stack = stack
  seen.add(thrown)
  const cause = peek(thrown, 'cause')
  if (cause !== undefined && depth > 1 && !seen.has(cause)) facts.cause = describeTo(depth - 1, cause, seen)
  return facts
}

function codeOf (thrown: unknown): string | null {
  const code = peek(thrown, 'code')
  return typeof code === 'number' ? String(code) : text(code) ?? null
}

/** What to say of a value that is no error. Its own properties stay out: they may hold secrets. */
function nameless (thrown: unknown): string {
  if (typeof thrown === 'function') return 'a function was thrown'
  if (typeof thrown !== 'object' || thrown === null) return cut(String(thrown))
  return types.isNativeError(thrown) ? '' : 'an object without a message was thrown'
}

function text (value: unknown): string | undefined {
  return typeof value === 'string' ? cut(value) : undefined
}

/**
 * A slice keeps the whole string alive, so the part that stays is copied. JSON lets U+2028 and U+2029 through, which
 * end a line for some readers of logs; as `\n` they do not.
 */
function cut (value: string): string {
  return (value.length <= LONGEST ? value : Buffer.from(value.slice(0, LONGEST)).toString()).replace(/[\u2028\u2029]/g, '\n')
}
