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
  const text = JSON.stringify(value) as string | undefined
  if (text === undefined) return undefined
  const copy = JSON.parse(text) as Json
  // Each level takes two characters at least: short texts need no look.
  if (text.length > 2 * DEEPEST && isDeeper(copy, DEEPEST)) throw new RangeError(`nested deeper than ${DEEPEST} levels`)
  return { value: copy, bytes: Buffer.byteLength(text) }
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
  for (const key of Object.keys(value)) {
    // Defined, not assigned: `__proto__` from a JSON text is an own key and must stay one.
    if (key === '__proto__') Object.defineProperty(copy, key, { value: cloneJson(value[key] as Json), enumerable: true, configurable: true, writable: true })
    else copy[key] = cloneJson(value[key] as Json)
  }
  return copy
}
