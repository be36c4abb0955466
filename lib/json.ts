/** JSON values, and the copies that keep callers, jobs and attempts from sharing an object. */

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }

export interface Copied {
  value: Json
  /** Length of the JSON text in UTF-8. */
  bytes: number
}

/** Levels of nesting. A deeper value, taken here, could overflow the stack of whoever copies or prints it later. */
const DEEPEST = 500

/**
 * A copy by JSON's rules (`toJSON` is called, `undefined` is dropped), or `undefined` when the value has no JSON
 * form, as a function has none. Throws what `JSON.stringify` throws: on cycles, on BigInt, from a `toJSON`; and on
 * values nested too deeply.
 */
export function copyAsJson (value: unknown): Copied | undefined {
  const copied: Copied = { value: null, bytes: 0 }
  const plain = copyPlain(value, copied, 0)
  if (plain === NOT_PLAIN) return copyByText(value)
  copied.value = plain
  return copied
}

function copyByText (value: unknown): Copied | undefined {
  const text = JSON.stringify(value) as string | undefined
  if (text === undefined) return undefined
  const copy = JSON.parse(text) as Json
  // Each level takes two characters at least: short texts need no look.
  if (text.length > 2 * DEEPEST && isDeeper(copy, DEEPEST)) throw new RangeError(`nested deeper than ${DEEPEST} levels`)
  return { value: copy, bytes: Buffer.byteLength(text) }
}

const NOT_PLAIN = Symbol('not plain')
/** Longer arrays are left to the text. */
const LONGEST_ARRAY = 10_000

/** Plain data is copied without its text, which takes a fifth of the time; only the text's length is summed up. */
function copyPlain (value: unknown, text: { bytes: number }, depth: number): Json | typeof NOT_PLAIN {
  switch (typeof value) {
    case 'string':
      text.bytes += bytesOf(value)
      return value
    case 'number':
      text.bytes += Number.isFinite(value) ? digitsOf(value) : 4
      return Number.isFinite(value) ? value + 0 : null // −0 has no text of its own
    case 'boolean':
      text.bytes += value ? 4 : 5
      return value
    case 'object':
      if (value === null) {
        text.bytes += 4
        return null
      }
      if (depth === DEEPEST || typeof (value as { toJSON?: unknown }).toJSON === 'function') return NOT_PLAIN
      return Array.isArray(value) ? copyArray(value, text, depth + 1) : copyObject(value, text, depth + 1)
    default:
      return NOT_PLAIN
  }
}

function copyArray (values: readonly unknown[], text: { bytes: number }, depth: number): Json | typeof NOT_PLAIN {
  if (values.length > LONGEST_ARRAY) return NOT_PLAIN
  const copy: Json[] = []
  text.bytes += values.length === 0 ? 2 : values.length + 1
  for (const value of values) {
    const copied = copyPlain(value, text, depth)
    if (copied === NOT_PLAIN) return NOT_PLAIN
    copy.push(copied)
  }
  return copy
}

function copyObject (value: object, text: { bytes: number }, depth: number): Json | typeof NOT_PLAIN {
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) return NOT_PLAIN
  const copy: Record<string, Json> = {}
  let members = 0
  for (const key in value) { // an array of the keys would be a fourth of a small object's copy
    if (!Object.hasOwn(value, key)) continue
    const member = (value as Record<string, unknown>)[key]
    if (member === undefined) continue
    const copied = copyPlain(member, text, depth)
    if (copied === NOT_PLAIN || key === '__proto__') return NOT_PLAIN
    copy[key] = copied
    text.bytes += bytesOf(key) + 1
    members++
  }
  text.bytes += members === 0 ? 2 : members + 1
  return copy
}

/** Of a string's JSON text in UTF-8. */
function bytesOf (text: string): number {
  if (text.length > 64) return Buffer.byteLength(JSON.stringify(text))
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code < 0x20 || code > 0x7e || code === 0x22 || code === 0x5c) return Buffer.byteLength(JSON.stringify(text))
  }
  return text.length + 2
}

function digitsOf (value: number): number {
  return String(value).length
}

function isDeeper (value: Json, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false
  return levels === 0 || Object.values(value).some((inner) => isDeeper(inner, levels - 1))
}

/** A copy of what is known to be JSON. */
export function cloneJson (value: Json): Json {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(cloneJson)
  const copy: Record<string, Json> = {}
  for (const key in value) {
    // Defined, not assigned: `__proto__` from a JSON text is an own key and must stay one.
    if (key === '__proto__') Object.defineProperty(copy, key, { value: cloneJson(value[key] as Json), enumerable: true, configurable: true, writable: true })
    else copy[key] = cloneJson(value[key] as Json)
  }
  return copy
}
