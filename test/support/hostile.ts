/** Values that no caller should pass, for fuzzing, and a watch over the prototypes they might reach. */
import fc from 'fast-check'

export const trap = (): never => { throw new Error('a trap was sprung') }
export const traps = Object.fromEntries(Object.getOwnPropertyNames(Reflect).map((name) => [name, trap]))

export function revoked (): object {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  return proxy
}

/** An error with so many causes behind it, one behind the other. */
export function chain (length: number): Error {
  let error = new Error('the root')
  for (let n = 1; n < length; n++) error = new Error(`cause ${n}`, { cause: error })
  return error
}

/** Two errors, each the cause of the other. */
export function circle (): Error {
  const [a, b] = [new Error('a'), new Error('b')]
  a.cause = b
  b.cause = a
  return a
}

/** Characters that end a line for somebody, steer a terminal, or mean something to a parser. */
export const nastyTexts = [
  '', ' ', '\n', 'a\nb', 'a\r\nb', '\u0000', '\u001b[31m', '\u007f', '\u0085', '\u009b31m', 'a\u2028b', '\u2029', '{"level":60}\n{"level":60}',
  '__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', '%s%d%j', '../../etc/passwd', '<script>alert(1)</script>', '\ud800',
  'x'.repeat(129), 'é'.repeat(100_000)
]

/** Made anew each time: some of them can be used up. */
export const nastyValues: ReadonlyArray<() => unknown> = [
  ...nastyTexts.map((text) => () => text),
  () => null, () => true, () => false, () => 0, () => -0, () => -1, () => 1.5, () => NaN, () => Infinity, () => -Infinity, () => 1e308,
  () => 2 ** 53, () => 2 ** 31, () => 10n, () => Symbol('s'), () => Symbol.iterator, () => trap, () => class {}, () => new Date(NaN), () => new Date(8.64e15),
  () => [], () => [1, [2]], () => Object.assign([], { length: 3 }), () => ({}), () => Object.create(null), () => new Map([['a', 1]]), () => new Set([1]), () => /x/g,
  () => Promise.resolve(1), () => new Uint8Array(3), () => new AbortController().signal, () => Object.create(AbortSignal.prototype) as unknown,
  () => JSON.parse('{ "__proto__": { "polluted": true }, "constructor": { "prototype": { "polluted": true } } }') as unknown,
  revoked, () => new Proxy({}, traps), () => new Proxy([], traps), () => new Proxy(() => {}, traps),
  () => ({ get attempts () { return trap() } }), () => ({ toString: trap, valueOf: trap, toJSON: trap }), () => Object.freeze({ a: Object.freeze([]) }),
  () => { const circle: Record<string, unknown> = {}; circle['self'] = circle; return circle }
]

export const anyText = fc.oneof(fc.constantFrom(...nastyTexts), fc.string({ unit: 'binary', maxLength: 200 }))
/** Functions that make them: fast-check looks into the values themselves. */
export const anyValue: fc.Arbitrary<() => unknown> = fc.oneof(
  { weight: 2, arbitrary: fc.constantFrom(...nastyValues) },
  fc.anything({ withBigInt: true, withDate: true, withMap: true, withSet: true, withNullPrototype: true, withSparseArray: true, withTypedArray: true, withUnicodeString: true } as object).map((value) => () => value),
  fc.integer().map((value) => () => value), anyText.map((value) => () => value)
)

/** The same inputs each time; other ones with BG_SEED, more of them with BG_RUNS. */
export function runs (usual: number): fc.Parameters<unknown> {
  return { seed: Number(process.env['BG_SEED'] ?? 4), numRuns: Number(process.env['BG_RUNS'] ?? usual) }
}

/** Answers what was added to, or taken from, the prototypes since. */
export function watchPrototypes (): () => string[] {
  const watched = { Object: Object.prototype, Array: Array.prototype, Function: Function.prototype, String: String.prototype, Map: Map.prototype, Promise: Promise.prototype }
  const keys = (): string[] => Object.entries(watched).flatMap(([name, prototype]) => Reflect.ownKeys(prototype).map((key) => `${name}.${String(key)}`))
  const before = keys()
  return () => {
    const now = keys()
    return [...now.filter((key) => !before.includes(key)), ...before.filter((key) => !now.includes(key))]
  }
}

/** An error that says what was wrong; what comes from the inside has no such code. */
export function isCoded (error: unknown): boolean {
  return /^FST_BG_[A-Z_]+$/.test(String((error as { code?: unknown } | null | undefined)?.code))
}

/** Without lone surrogates, which have no place in a URL. */
export function wellFormed (text: string): string {
  return Buffer.from(text).toString()
}
