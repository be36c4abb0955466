/** Checks of values that callers pass: each says what it expected and what came, before anything is changed. */
import { types } from 'node:util'
import { errors, LONGEST_MS } from './errors.ts'

/** Returns what was expected instead, or `undefined` when the value is fine. */
export type Check = (value: unknown) => string | undefined
export type Checks = Readonly<Record<string, Check>>

const isNumber = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value)

function expect (what: string, fits: (value: unknown) => boolean): Check {
  return (value) => fits(value) ? undefined : what
}

export const integer = (min: number, max: number): Check =>
  expect(`an integer from ${min} to ${max}`, (value) => isNumber(value) && Number.isInteger(value) && value >= min && value <= max)
/** Attempts alive at once in one process. */
export const concurrency = integer(1, 10_000)
export const ratio = expect('a number from 0 to 1', (value) => isNumber(value) && value >= 0 && value <= 1)
export const duration = expect('a number of ms, at least 0', (value) => isNumber(value) && value >= 0 && value <= LONGEST_MS)
export const positiveDuration = expect('a number of ms above 0', (value) => isNumber(value) && value > 0 && value <= LONGEST_MS)
export const boolean = expect('true or false', (value) => typeof value === 'boolean')
export const func = expect('a function', (value) => typeof value === 'function')
export const name = expect('a string of 1 to 128 characters, none of them a control character',
  (value) => typeof value === 'string' && value.length > 0 && value.length <= 128 && !/[\p{Cc}\p{Zl}\p{Zp}]/u.test(value))
export const path = expect('a path that starts with "/", or false',
  (value) => value === false || (typeof value === 'string' && value.startsWith('/')))
export const anything: Check = () => undefined
export const object: Check = (value) => entriesOf(value) !== undefined ? undefined : 'an object'

export const oneOf = (...values: unknown[]): Check =>
  expect(values.map((value) => JSON.stringify(value)).join(' or '), (value) => values.includes(value))

export const either = (a: Check, b: Check): Check => (value) => {
  const first = a(value)
  if (first === undefined) return undefined
  const second = b(value)
  return second === undefined ? undefined : `${first}, or ${second}`
}

export const instant: Check = expect('a Date, an ISO 8601 text or ms since the epoch', (value) => !Number.isNaN(toEpoch(value)))

/** Date.parse also takes what no standard knows, and guesses. */
const ISO_8601 = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?)?$/
/** The last instant a Date can hold. */
const LAST_INSTANT = 8.64e15

/** Ms since the epoch, or NaN. */
export function toEpoch (value: unknown): number {
  if (value instanceof Date) return value.getTime()
  if (typeof value === 'string') return ISO_8601.test(value) ? Date.parse(value) : NaN
  return isNumber(value) && Math.abs(value) <= LAST_INSTANT ? value : NaN
}

/** Says what came, short and without its contents where these may be long or secret. */
export function came (value: unknown): string {
  if (typeof value === 'string') return `${JSON.stringify(value.slice(0, 40))} (string)`
  if (typeof value === 'function') return 'a function'
  if (value === null || typeof value !== 'object') return `${String(value).slice(0, 40)} (${typeof value})`
  return isArray(value) ? 'an array' : 'an object'
}

/** Total, where `Array.isArray` throws: a revoked proxy is none. */
export function isArray (value: unknown): value is unknown[] {
  try {
    return Array.isArray(value)
  } catch {
    return false
  }
}

/** Own keys and values, each read once; `undefined` for what is no plain group of values, or cannot be read. */
export function entriesOf (value: unknown): Array<[key: string, value: unknown]> | undefined {
  if (typeof value !== 'object' || value === null || isArray(value)) return undefined
  try {
    return Object.entries(value)
  } catch {
    return undefined
  }
}

/**
 * What a function of the user answered. A promise is no answer, and its rejection would be nobody's.
 * @throws TypeError
 */
export function atOnce<T> (answer: T): T {
  if (!types.isPromise(answer)) return answer
  answer.catch(() => {})
  throw new TypeError('expected an answer at once, got a promise')
}

/** @throws FST_BG_BAD_OPTION */
export function must (where: string, check: Check, value: unknown): void {
  let expected: string | undefined
  try {
    expected = check(value)
  } catch {
    expected = 'a value that can be read' // a proxy, a getter
  }
  if (expected !== undefined) throw new errors.BadOption(where, expected, came(value))
}

/**
 * Checks an object of options against its table. Returns a copy without the keys that are `undefined`, which count
 * as not given.
 * @throws FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION
 */
export function options<T extends object> (where: string, checks: Checks, value: unknown): T {
  const given = copyOf(value)
  if (given === undefined) throw new errors.BadOption(where, 'an object of options', came(value))
  for (const key in given) {
    if (!Object.hasOwn(given, key)) continue
    const option = given[key]
    if (option === undefined) return options(where, checks, Object.fromEntries(Object.entries(given).filter(([, each]) => each !== undefined)))
    if (!Object.hasOwn(checks, key)) {
      throw new errors.UnknownOption(where, key.slice(0, 40), Object.keys(checks).join(', '))
    }
    must(`${where}.${key}`, checks[key] as Check, option)
  }
  return given as T
}

/** Each value read once, like `entriesOf`, at a fourth of its price: every job with options passes here. */
function copyOf (value: unknown): Record<string, unknown> | undefined {
  if (typeof value !== 'object' || value === null || isArray(value)) return undefined
  try {
    return { ...value }
  } catch {
    return undefined
  }
}

/** An option that is itself an object of options. */
export const group = (checks: Checks): Check => (value) => {
  const entries = entriesOf(value)
  if (entries === undefined) return `an object of ${Object.keys(checks).join(', ')}`
  for (const [key, option] of entries) {
    if (option === undefined) continue
    if (!Object.hasOwn(checks, key)) return `an object of ${Object.keys(checks).join(', ')} (it has "${key.slice(0, 40)}")`
    const expected = (checks[key] as Check)(option)
    if (expected !== undefined) return `${key} to be ${expected} (it is ${came(option)})`
  }
  return undefined
}
