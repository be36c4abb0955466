/** The words that carry no jobs: deadlines, heap, id, json, describe, check, errors. */
import Fastify from 'fastify'
import fc from 'fast-check'
import t, { test } from 'tap'
import * as check from '../lib/check.ts'
import { systemClock, watchLoopDelay, type Clock, type Timer } from '../lib/clock.ts'
import { Deadlines, type Deadline } from '../lib/deadlines.ts'
import { describe, peek, type ErrorFacts } from '../lib/describe.ts'
import { asRetryLater, errors, isUnrecoverable, JobAbortedError, LONGEST_MS, RetryLaterError, UnrecoverableError } from '../lib/errors.ts'
import { Heap, type HeapItem } from '../lib/heap.ts'
import { createIds, isId } from '../lib/id.ts'
import { MOVES, isFinal, iso, type JobState } from '../lib/job.ts'
import { cloneJson, copyAsJson, type Json } from '../lib/json.ts'
import { TestClock } from './support/clock.ts'
import { chain, circle, revoked } from './support/hostile.ts'
import { watchLeaks } from './support/leaks.ts'
import { seed } from './support/seed.ts'

watchLeaks(t)
fc.configureGlobal({ seed })

// Deadlines

interface Rung extends Timer {
  run: () => void
  ms: number
  held: boolean
}

/** A clock whose timers the test fires by hand, early if it likes. */
class HandClock implements Clock {
  time = 0
  readonly timers = new Set<Rung>()
  made = 0
  now = (): number => this.time
  monotonic = (): number => this.time
  random = (): number => 0
  soon = (run: () => void): void => { run() }

  setTimer (run: () => void, ms: number): Timer {
    const timer: Rung = { run, ms, held: true, ref () { timer.held = true }, unref () { timer.held = false } }
    this.timers.add(timer)
    this.made++
    return timer
  }

  clearTimer (timer: Timer): void { this.timers.delete(timer as Rung) }

  get only (): Rung {
    if (this.timers.size !== 1) throw new Error(`${this.timers.size} timers`)
    return [...this.timers][0] as Rung
  }

  /** Fires the only timer, with the time at `at`. */
  ring (at: number): void {
    const timer = this.only
    this.timers.delete(timer)
    this.time = at
    timer.run()
  }
}

class Item implements Deadline {
  due = 0
  place = -1
  readonly name: string
  constructor (name: string) { this.name = name }
}

function someDeadlines () {
  const clock = new HandClock()
  const reached: string[] = []
  return { clock, reached, deadlines: new Deadlines<Item>(clock, (item) => { reached.push(item.name) }) }
}

test('100 000 deadlines share one timer, and are reached in their order', async (t) => {
  const clock = new TestClock()
  const due: number[] = []
  const deadlines = new Deadlines<Item>(clock, (item) => { due.push(item.due) })
  for (let i = 0; i < 100_000; i++) deadlines.set(new Item(''), 2_000 + (i * 7_919) % 10_000)
  t.equal(clock.pendingTimers, 1)
  await clock.advance(20_000)
  t.equal(due.length, 100_000)
  t.ok(due.every((at, i) => i === 0 || at >= (due[i - 1] as number)))
  t.equal(clock.pendingTimers, 0)
})

test('a thousand deadlines at most are handled in one turn', async (t) => {
  const { clock, reached, deadlines } = someDeadlines()
  for (let i = 0; i < 2_500; i++) deadlines.set(new Item(`${i}`), 10)
  clock.ring(10)
  t.equal(reached.length, 1_000)
  t.equal(clock.only.ms, 0)
  clock.ring(10)
  clock.ring(10)
  t.equal(reached.length, 2_500)
  t.equal(clock.timers.size, 0)
})

test('a timer that fires early reaches only what is due within a millisecond', async (t) => {
  const { clock, reached, deadlines } = someDeadlines()
  deadlines.set(new Item('a'), 100)
  deadlines.set(new Item('b'), 101)
  clock.ring(99.3)
  t.strictSame(reached, ['a'])
  t.equal(clock.only.ms, 2)
  clock.ring(101)
  t.strictSame(reached, ['a', 'b'])
})

test('a timer that fires much too early only sets itself again', async (t) => {
  const { clock, reached, deadlines } = someDeadlines()
  deadlines.set(new Item('a'), 100)
  clock.ring(50)
  t.strictSame(reached, [])
  t.equal(clock.only.ms, 50)
  deadlines.close()
})

test('a wait beyond 2^31 − 1 ms is chained', async (t) => {
  const { clock, reached, deadlines } = someDeadlines()
  const longest = 2 ** 31 - 1
  deadlines.set(new Item('far'), 2.5 * longest)
  deadlines.set(new Item('never'), Infinity)
  for (const waited of [1, 2]) {
    t.equal(clock.only.ms, longest)
    clock.ring(waited * longest)
    t.strictSame(reached, [])
  }
  t.equal(clock.only.ms, Math.ceil(longest / 2))
  clock.ring(2.5 * longest)
  t.strictSame(reached, ['far'])
  t.equal(clock.timers.size, 0, 'for ever needs no timer')
  deadlines.close()
})

test('an earlier deadline takes the timer over, a later one leaves it alone', async (t) => {
  const { clock, deadlines } = someDeadlines()
  deadlines.set(new Item('a'), 100)
  deadlines.set(new Item('b'), 200)
  t.equal(clock.made, 1)
  deadlines.set(new Item('c'), 50)
  t.equal(clock.only.ms, 50)
  deadlines.close()
})

test('a deadline can be moved and taken out', async (t) => {
  const { clock, reached, deadlines } = someDeadlines()
  const [a, b] = [new Item('a'), new Item('b')]
  deadlines.set(a, 100)
  deadlines.set(b, 50)
  deadlines.set(b, 150)
  deadlines.set(a, 300)
  deadlines.delete(a)
  deadlines.delete(a)
  clock.ring(50)
  t.strictSame(reached, [])
  clock.ring(150)
  t.strictSame(reached, ['b'])
  t.equal(clock.timers.size, 0)
})

test('the timer holds the process only while a deadline is pending', async (t) => {
  const { clock, deadlines } = someDeadlines()
  const item = new Item('a')
  deadlines.set(item, 100)
  t.ok(clock.only.held)
  deadlines.delete(item)
  t.notOk(clock.only.held)
  deadlines.set(item, 200)
  t.ok(clock.only.held)
  t.equal(clock.made, 1)
  clock.ring(100)
  t.ok(clock.only.held)
  t.equal(clock.only.ms, 100)
  deadlines.close()
})

test('a deadline may set and delete others while it is reached', async (t) => {
  const clock = new HandClock()
  const reached: string[] = []
  const [a, b, c] = [new Item('a'), new Item('b'), new Item('c')]
  const deadlines: Deadlines<Item> = new Deadlines<Item>(clock, (item) => {
    reached.push(item.name)
    if (item !== a) return
    t.equal(a.place, -1)
    deadlines.delete(b)
    deadlines.set(c, 5)
    deadlines.set(a, 1_000)
  })
  deadlines.set(a, 10)
  deadlines.set(b, 10)
  clock.ring(10)
  t.strictSame(reached, ['a', 'c'])
  clock.ring(11)
  t.equal(clock.only.ms, 989)
  deadlines.close()
})

test('closed deadlines leave no timer, nor does one that comes later', async (t) => {
  const { clock, reached, deadlines } = someDeadlines()
  const item = new Item('a')
  deadlines.set(item, 10)
  deadlines.close()
  t.equal(clock.timers.size, 0)
  t.equal(item.place, -1)
  deadlines.delete(item)
  deadlines.set(new Item('late'), 20)
  t.equal(clock.timers.size, 0)
  t.strictSame(reached, [])
  deadlines.close()
})

// Clock

test('the system clock tells the time, fires timers, and comes back in a later turn', async (t) => {
  const before = systemClock.monotonic()
  t.ok(Math.abs(systemClock.now() - Date.now()) < 1_000)
  const random = systemClock.random()
  t.ok(random >= 0 && random < 1)
  const order: string[] = []
  await new Promise<void>((resolve) => {
    systemClock.clearTimer(systemClock.setTimer(() => { order.push('cleared') }, 0))
    systemClock.setTimer(() => { order.push('timer'); resolve() }, 5)
    systemClock.soon(() => { order.push('soon') })
    void Promise.resolve().then(() => order.push('microtask'))
  })
  t.strictSame(order, ['microtask', 'soon', 'timer'])
  t.ok(systemClock.monotonic() > before)
})

test('the watch over the loop says nothing bad of a loop it has not seen, and holds no process', async (t) => {
  const clock = new TestClock()
  const watch = watchLoopDelay(clock)
  t.equal(watch.read(), 0)
  await clock.advance(61_000)
  t.ok(watch.read() >= 0)
  watch.stop()
})

// Heap

class Weight implements HeapItem {
  place = -1
  weight: number
  constructor (weight: number) { this.weight = weight }
}

test('a heap gives its items in order, whatever was added, moved and taken out', async (t) => {
  const step = fc.oneof(
    fc.record({ act: fc.constant('add' as const), weight: fc.nat(20) }),
    fc.record({ act: fc.constant('move' as const), pick: fc.nat(40), weight: fc.nat(20) }),
    fc.record({ act: fc.constant('delete' as const), pick: fc.nat(40) }),
    fc.record({ act: fc.constant('shift' as const) })
  )
  fc.assert(fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
    const heap = new Heap<Weight>((a, b) => a.weight < b.weight)
    const model: Weight[] = []
    const lightest = (): number | undefined => model.length === 0 ? undefined : Math.min(...model.map(({ weight }) => weight))
    for (const one of steps) {
      const at = 'pick' in one ? one.pick % (model.length || 1) : 0
      if (one.act === 'add') {
        model.push(new Weight(one.weight))
        heap.set(model.at(-1) as Weight)
      } else if (one.act === 'move' && model[at] !== undefined) {
        model[at].weight = one.weight
        heap.set(model[at])
      } else if (one.act === 'delete' && model[at] !== undefined) {
        const [gone] = model.splice(at, 1) as [Weight]
        heap.delete(gone)
        heap.delete(gone)
        if (gone.place !== -1) return false
      } else if (one.act === 'shift' && heap.first !== undefined) {
        model.splice(model.indexOf(heap.first), 1)
        heap.delete(heap.first)
      }
      if (heap.size !== model.length || heap.first?.weight !== lightest()) return false
      if ([...heap].some((item, place) => item.place !== place || !model.includes(item))) return false
    }
    return true
  }))
  t.pass('held')
})

test('a cleared heap knows none of its items', async (t) => {
  const heap = new Heap<Weight>((a, b) => a.weight < b.weight)
  const items = [3, 1, 2].map((weight) => new Weight(weight))
  for (const item of items) heap.set(item)
  heap.clear()
  t.equal(heap.size, 0)
  t.equal(heap.first, undefined)
  t.strictSame(items.map(({ place }) => place), [-1, -1, -1])
})

// Ids

function createTexts (): (now: number) => string {
  const ids = createIds()
  return (now) => {
    const count = ids.count(now)
    return ids.text(count, ids.stamp)
  }
}

test('an id is a UUID of version 7 that carries its millisecond', async (t) => {
  const clock = new TestClock()
  const ids = createTexts()
  const next = (): string => ids(clock.now())
  for (let n = 0; n < 100; n++) {
    const id = next()
    t.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    t.equal(parseInt(id.replaceAll('-', '').slice(0, 12), 16), clock.now())
    t.ok(isId(id))
    clock.jump(n * 40_000_000)
  }
})

test('ids rise within a millisecond, and when the wall clock goes back', async (t) => {
  const clock = new TestClock()
  const ids = createTexts()
  const next = (): string => ids(clock.now())
  let last = ''
  let falls = 0
  for (let n = 0; n < 20_000; n++) {
    if (n % 500 === 0) clock.jump(n % 1_000 === 0 ? 1 : -3_600_000)
    const id = next()
    if (id <= last) falls++
    last = id
  }
  t.equal(falls, 0)
})

test('ids rise by a clock that tells fractions of a millisecond', async (t) => {
  const clock = new TestClock()
  const ids = createTexts()
  const next = (): string => ids(clock.now())
  let last = ''
  let falls = 0
  for (let n = 0; n < 2_000; n++) {
    clock.jump(0.01)
    const id = next()
    if (id <= last) falls++
    last = id
  }
  t.equal(falls, 0)
})

test('a million ids are a million', async (t) => {
  const next = createTexts()
  const seen = new Set<string>()
  for (let n = 0; n < 1e6; n++) seen.add(next(systemClock.now()))
  t.equal(seen.size, 1e6)
})

test('the random part of an id differs from id to id and from process to process', async (t) => {
  const clock = new TestClock()
  const [one, other] = [createTexts(), createTexts()]
  const tails = new Set(Array.from({ length: 2_000 }, (_, i) => (i % 2 === 0 ? one : other)(clock.now()).slice(19)))
  t.equal(tails.size, 2_000)
})

test('only a text of the right shape is an id', async (t) => {
  const id = createTexts()(systemClock.now())
  for (const not of [undefined, null, 7, {}, [id], '', `${id} `, `${id}\n`, id.toUpperCase(), id.slice(1), `${id.slice(0, 14)}4${id.slice(15)}`, '__proto__']) {
    t.notOk(isId(not))
  }
})

// JSON

test('a copy follows the rules of JSON', async (t) => {
  const copied = copyAsJson({
    date: new Date(0), gone: undefined, fn: () => {}, nan: NaN, list: [undefined, () => {}, -0], map: new Map([[1, 2]]), nested: { toJSON: () => 'short' }
  })
  t.strictSame(copied?.value, { date: '1970-01-01T00:00:00.000Z', nan: null, list: [null, null, 0], map: {}, nested: 'short' })
  t.equal(copyAsJson('é€')?.bytes, 7, 'bytes are those of UTF-8')
})

test('whatever the value, its copy and its length are those of its JSON text', async (t) => {
  const anything = fc.anything({ withDate: true, withNullPrototype: true, withSparseArray: true, withObjectString: true, withBoxedValues: true, withMap: true, withTypedArray: true })
  fc.assert(fc.property(fc.oneof(anything, fc.jsonValue(), fc.string({ unit: 'binary' })), (value) => {
    const text = JSON.stringify(value) as string | undefined
    const copied = copyAsJson(value)
    if (text === undefined) return copied === undefined
    return JSON.stringify(copied?.value) === text && copied?.bytes === Buffer.byteLength(text)
  }), { numRuns: 2_000 })
  t.pass('held')
})

test('a copy takes members that JSON takes, and no others', async (t) => {
  class Named { own = 1; get inherited () { return 2 } }
  const hidden = Object.defineProperty({ seen: 1 }, 'hidden', { value: 2, enumerable: false })
  const converted = Object.defineProperty({ seen: 1 }, 'toJSON', { value: () => 'by itself', enumerable: false })
  for (const value of [new Named(), hidden, converted, { [Symbol('s')]: 1 }, new Proxy({ a: [1] }, {}), Array(20_000).fill(0), Object.assign([1], { toJSON: () => 7 })]) {
    t.strictSame(copyAsJson(value), { value: JSON.parse(JSON.stringify(value)), bytes: JSON.stringify(value).length })
  }
})

test('what has no JSON form gives no copy, or throws', async (t) => {
  for (const value of [undefined, () => {}, Symbol('s'), { toJSON: () => undefined }]) t.equal(copyAsJson(value), undefined)
  const circle: unknown[] = []
  circle.push(circle)
  for (const value of [circle, 1n, { toJSON () { throw new Error('no') } }]) t.throws(() => copyAsJson(value))
})

test('a clone equals its original and shares nothing with it', async (t) => {
  const objectsIn = (value: Json, found: object[] = []): object[] => {
    if (typeof value !== 'object' || value === null) return found
    found.push(value)
    for (const inner of Object.values(value)) objectsIn(inner, found)
    return found
  }
  fc.assert(fc.property(fc.json({ maxDepth: 5 }), (text) => {
    const value = JSON.parse(text) as Json
    const clone = cloneJson(value)
    const before = new Set(objectsIn(value))
    return JSON.stringify(clone) === JSON.stringify(value) && objectsIn(clone).every((object) => !before.has(object))
  }))
  t.pass('held')
})

test('__proto__ stays an own key and pollutes nothing', async (t) => {
  const text = '{"__proto__":{"admin":true},"constructor":{"prototype":{"admin":true}},"list":[{"__proto__":[1]}]}'
  const copied = copyAsJson(JSON.parse(text))
  const clone = cloneJson(copied?.value as Json) as Record<string, unknown>
  t.equal(JSON.stringify(clone), text)
  t.equal(Object.getPrototypeOf(clone), Object.prototype)
  t.ok(Object.hasOwn(clone, '__proto__'))
  t.equal(clone.admin, undefined)
  t.equal(({} as { admin?: unknown }).admin, undefined)
  Object.getOwnPropertyDescriptor(clone, '__proto__')?.value.list?.push(1)
  t.strictSame(JSON.parse(text).list, [JSON.parse('{"__proto__":[1]}')])
})

/** The deepest nesting that gets through. */
function deepest (make: (depth: number) => unknown, use: (value: unknown) => unknown): number {
  let [fits, breaks] = [1, 1e5]
  while (breaks - fits > 1) {
    const middle = (fits + breaks) >> 1
    try {
      use(make(middle))
      fits = middle
    } catch {
      breaks = middle
    }
  }
  return fits
}

const nested = {
  arrays: (depth: number) => JSON.parse('['.repeat(depth) + ']'.repeat(depth)) as Json,
  objects: (depth: number) => JSON.parse('{"a":'.repeat(depth) + '0' + '}'.repeat(depth)) as Json
}

for (const [name, make] of Object.entries(nested)) {
  test(`nested ${name} that can be taken can be given out again, even from a deeper stack`, async (t) => {
    const taken = deepest(make, copyAsJson)
    t.ok(taken >= 100, `${taken} levels can be taken`)
    const value = make(taken)
    const below = (frames: number): Json => frames === 0 ? cloneJson(value) : below(frames - 1)
    // 1 000 frames: about what a request's way through hooks and validators may have used before.
    t.doesNotThrow(() => below(1_000), `cloneJson of ${taken} levels`)
    t.doesNotThrow(() => JSON.stringify(cloneJson(value)), `a text of ${taken} levels`)
  })
}

// Descriptions

const secret = 'Bearer 0123456789'
const throwing = (what: string): PropertyDescriptor => ({ enumerable: true, get () { throw new Error(`${what} was read`) } })
const traps = Object.fromEntries(Object.getOwnPropertyNames(Reflect).map((name) => [name, () => { throw new Error(`${name} was called`) }]))

const hostile: Record<string, unknown> = {
  undefined: undefined,
  null: null,
  'a text': 'plain',
  'an empty text': '',
  'a number': 7,
  'a BigInt': 7n,
  'a symbol': Symbol('why'),
  'a function': () => {},
  'an object': { a: 1 },
  'an object without prototype': Object.create(null),
  'a frozen error': Object.freeze(new Error('cold')),
  'an error without a message': new Error(),
  'throwing getters': Object.defineProperties({}, { name: throwing('name'), message: throwing('message'), stack: throwing('stack'), cause: throwing('cause'), code: throwing('code') }),
  'an error with throwing getters': Object.defineProperties(new Error('x'), { stack: throwing('stack'), message: throwing('message'), cause: throwing('cause') }),
  'a proxy whose traps throw': new Proxy({}, traps),
  'a proxy of an error whose traps throw': new Proxy(new Error('x'), traps),
  'a proxy of a function whose traps throw': new Proxy(() => {}, traps),
  'a revoked proxy': revoked(),
  'a message of 5 MB': new Error('é'.repeat(5_000_000)),
  'a text of 5 MB': 'x'.repeat(5_000_000),
  'a symbol of 5 MB': Symbol('x'.repeat(5_000_000)),
  'a chain of 10 000 causes': chain(10_000),
  'causes in a circle': circle(),
  'its own cause': Object.defineProperty(new Error('self'), 'cause', { get (): unknown { return this } }),
  'a cause that is a text': new Error('x', { cause: 'a text' }),
  'fields of the wrong types': { name: 7, message: { a: 1 }, stack: [], code: { b: 2 }, cause: null },
  'toString and toJSON that throw': Object.assign(new Error('x'), { toString () { throw new Error('toString was called') }, toJSON () { throw new Error('toJSON was called') } }),
  'toJSON in a cause': new Error('x', { cause: { toJSON () { throw new Error('toJSON was called') } } }),
  'lone surrogates': new Error(`${'x'.repeat(4_095)}😀`),
  'an AggregateError': new AggregateError([new Error(secret)], 'several'),
  'an axios error': Object.assign(new Error('Request failed'), { code: 'ECONNRESET', config: { headers: { authorization: secret } }, response: { data: secret } })
}

for (const [name, thrown] of Object.entries(hostile)) {
  test(`${name}, thrown, becomes small plain data that can be logged`, async (t) => {
    const lines: string[] = []
    const { log } = Fastify({ logger: { stream: { write (line: string) { lines.push(line) } } } })
    const facts = describe(thrown)
    const text = JSON.stringify(facts)
    t.ok(text.length < 120_000, `${text.length} characters`)
    t.match(facts, { name: String, message: String })
    t.notOk(text.includes(secret))
    for (const part of Object.values(facts)) t.ok(part === null || typeof part === 'string' && part.length <= 4_096 || typeof part === 'object')
    log.error({ err: facts }, 'described')
    t.match(JSON.parse(lines[0] ?? '') as unknown, { msg: 'described', err: { message: facts.message } })
  })
}

test('a description tells name, code, message, stack and cause', async (t) => {
  const cause = new RangeError('the root')
  const error = Object.assign(new TypeError('did not work', { cause }), { code: 'E_X' })
  t.match(describe(error), { name: 'TypeError', code: 'E_X', message: 'did not work', stack: /^TypeError: did not work\n/, cause: { name: 'RangeError', message: 'the root' } })
  t.equal(describe(Object.assign(new Error('x'), { code: 404 })).code, '404')
  t.equal(describe(new Error('x')).code, null)
})

test('what is no error is described by its kind', async (t) => {
  const message = (thrown: unknown): string => describe(thrown).message
  t.equal(message(undefined), 'undefined')
  t.equal(message('plain'), 'plain')
  t.equal(message(Symbol('why')), 'Symbol(why)')
  t.equal(message(() => {}), 'a function was thrown')
  t.equal(message({ a: secret }), 'an object without a message was thrown')
  t.equal(message(new Error()), '')
})

test('at most five errors of a chain are described, and no circle is followed', async (t) => {
  const depth = (facts: ErrorFacts | undefined): number => facts === undefined ? 0 : 1 + depth(facts.cause)
  t.equal(depth(describe(chain(10_000))), 5)
  t.equal(depth(describe(circle())), 2)
})

test('a cut text does not keep the whole alive in memory, and stays text', async (t) => {
  const { message } = describe(new Error('😀'.repeat(3_000)))
  t.ok(message.length <= 4_096)
  t.ok(Buffer.byteLength(message) >= 4_096)
})

test('peek reads what can be read and never throws', async (t) => {
  t.equal(peek({ a: 1 }, 'a'), 1)
  t.equal(peek(Object.assign(() => {}, { a: 1 }), 'a'), 1)
  for (const value of [undefined, null, 'text', 7, revoked(), new Proxy({}, traps)]) t.equal(peek(value, 'length'), undefined)
})

// Checks

const rejected: ReadonlyArray<readonly [check.Check, unknown, string]> = [
  [check.integer(1, 5), 0, 'expected an integer from 1 to 5, got 0 (number)'],
  [check.integer(1, 5), 1.5, 'expected an integer from 1 to 5, got 1.5 (number)'],
  [check.integer(1, 5), '3', 'expected an integer from 1 to 5, got "3" (string)'],
  [check.integer(1, 5), NaN, 'expected an integer from 1 to 5, got NaN (number)'],
  [check.ratio, 1.01, 'expected a number from 0 to 1, got 1.01 (number)'],
  [check.duration, -1, 'expected a number of ms, at least 0, got -1 (number)'],
  [check.duration, Infinity, 'expected a number of ms, at least 0, got Infinity (number)'],
  [check.duration, 5n, 'expected a number of ms, at least 0, got 5 (bigint)'],
  [check.positiveDuration, 0, 'expected a number of ms above 0, got 0 (number)'],
  [check.boolean, 'true', 'expected true or false, got "true" (string)'],
  [check.func, {}, 'expected a function, got an object'],
  [check.name, '', 'expected a string of 1 to 128 characters, none of them a control character, got "" (string)'],
  [check.name, 'a\nb', 'expected a string of 1 to 128 characters, none of them a control character, got "a\\nb" (string)'],
  [check.path, 'jobs', 'expected a path that starts with "/", or false, got "jobs" (string)'],
  [check.path, true, 'expected a path that starts with "/", or false, got true (boolean)'],
  [check.oneOf('a', 'b'), 'c', 'expected "a" or "b", got "c" (string)'],
  [check.oneOf('a', 'b'), Symbol('c'), 'expected "a" or "b", got Symbol(c) (symbol)'],
  [check.either(check.duration, check.func), null, 'expected a number of ms, at least 0, or a function, got null (object)'],
  [check.instant, 'tomorrow', 'expected a Date, an ISO 8601 text or ms since the epoch, got "tomorrow" (string)'],
  [check.instant, new Date(NaN), 'expected a Date, an ISO 8601 text or ms since the epoch, got an object'],
  [check.instant, 8.65e15, 'expected a Date, an ISO 8601 text or ms since the epoch, got 8650000000000000 (number)'],
  [check.group({ a: check.func }), [], 'expected an object of a, got an array'],
  [check.group({ a: check.func }), { a: 1 }, 'expected a to be a function (it is 1 (number)), got an object'],
  [check.group({ a: check.func }), { b: 1 }, 'expected an object of a (it has "b"), got an object']
]

test('a check says what it expected and what came', async (t) => {
  for (const [one, value, text] of rejected) t.throws(() => { check.must('here', one, value) }, { code: 'FST_BG_BAD_OPTION', message: `here: ${text}` })
})

test('a check lets good values pass', async (t) => {
  const good: ReadonlyArray<readonly [check.Check, ...unknown[]]> = [
    [check.integer(1, 5), 1, 5], [check.ratio, 0, 0.5, 1], [check.duration, 0, 0.5, LONGEST_MS], [check.positiveDuration, 0.1],
    [check.name, 'a', 'ä €', 'x'.repeat(128)], [check.path, '/', '/a', false], [check.instant, new Date(0), '2026-01-01T00:00:00Z', 0],
    [check.group({ a: check.func }), {}, { a: undefined }, { a () {} }], [check.anything, Symbol('x')]
  ]
  for (const [one, ...values] of good) for (const value of values) t.equal(one(value), undefined)
})

test('what came is told in few characters', async (t) => {
  for (const value of ['x'.repeat(1e6), { secret }, [secret], new Proxy({}, traps), Object.create(null), 10n ** 400n, Symbol('x'.repeat(500))]) {
    const text = check.came(value)
    t.ok(text.length < 100, `${text.length} characters`)
    t.notOk(text.includes(secret))
  }
})

test('options are copied without what is undefined, and unknown names are refused', async (t) => {
  const checks = { a: check.duration, b: check.func }
  t.strictSame(check.options('options', checks, { a: 1, b: undefined, c: undefined }), { a: 1 })
  t.throws(() => check.options('options', checks, { aa: 1 }), { code: 'FST_BG_UNKNOWN_OPTION', message: 'options: unknown option "aa"; known here: a, b' })
  t.throws(() => check.options('options', checks, { toString: 1 }), { code: 'FST_BG_UNKNOWN_OPTION' })
  t.throws(() => check.options('options', checks, { a: 'x' }), { code: 'FST_BG_BAD_OPTION', message: /^options\.a: expected/ })
  for (const value of [null, [], 'text', 7]) t.throws(() => check.options('options', checks, value), { message: /^options: expected an object of options, got / })
})

test('an option named __proto__ is unknown, and switches no prototype', async (t) => {
  t.throws(() => check.options('options', {}, JSON.parse('{"__proto__":{"a":1}}')), { code: 'FST_BG_UNKNOWN_OPTION' })
})

test('instants are read as ms since the epoch', async (t) => {
  t.equal(check.toEpoch(new Date(5)), 5)
  t.equal(check.toEpoch('1970-01-01T00:00:01Z'), 1_000)
  t.equal(check.toEpoch(7), 7)
  for (const value of [undefined, {}, NaN, 'x', true]) t.ok(Number.isNaN(check.toEpoch(value)))
})

// Errors and states

test('errors carry their code and status', async (t) => {
  const statuses = { BadIdempotencyKey: 400, IdempotencyKeyInFlight: 409, IdempotencyKeyReused: 422, QueueFull: 503, Closing: 503, StoreUnavailable: 503, JobNotFound: 404, Forbidden: 403, CrossSite: 403, NotJson: 415, NotCancellable: 409, TooManyStreams: 503 } as Record<string, number>
  for (const [name, Made] of Object.entries(errors)) {
    const error = new (Made as new (...args: unknown[]) => Error & { code: string, statusCode: number })('a', 'b', 'c')
    t.match(error.code, /^FST_BG_[A-Z_]+$/)
    t.equal(error.statusCode, statuses[name] ?? 500, name)
    t.notMatch(error.message, /%s|undefined/)
  }
})

test('errors with meaning are known by their brand, also those of another copy of the package', async (t) => {
  t.ok(isUnrecoverable(new UnrecoverableError('no')))
  t.ok(isUnrecoverable({ [Symbol.for('fastify-background-tasks.unrecoverable')]: true }))
  t.notOk(isUnrecoverable(Object.assign(new Error('no'), { name: 'UnrecoverableError' })))
  t.strictSame(asRetryLater(new RetryLaterError({ delay: 5 })), { delay: 5, countAttempt: true })
  const brand = { [Symbol.for('fastify-background-tasks.retry-later')]: true }
  t.strictSame(asRetryLater({ ...brand, delay: 7, countAttempt: false }), { delay: 7, countAttempt: false })
  for (const value of [undefined, null, 'text', new Error('x'), new Proxy({}, traps), revoked()]) {
    t.equal(asRetryLater(value), undefined)
    t.notOk(isUnrecoverable(value))
  }
})

test('a delay that is none, in an error of another copy, is taken as 0', async (t) => {
  const brand = { [Symbol.for('fastify-background-tasks.retry-later')]: true }
  for (const delay of [-1, NaN, '5', undefined, Infinity]) t.equal(asRetryLater({ ...brand, delay })?.delay, 0, String(delay))
})

test('RetryLaterError refuses a delay that is none', async (t) => {
  for (const delay of [-1, NaN, Infinity, '5', undefined]) {
    t.throws(() => new RetryLaterError({ delay: delay as number }), { code: 'FST_BG_BAD_OPTION' })
  }
  const cause = new Error('x')
  t.match(new RetryLaterError({ delay: 5, cause, message: 'busy' }), { name: 'RetryLaterError', code: 'FST_BG_RETRY_LATER', message: 'busy', cause })
})

test('the reason of a signal is an AbortError that says which kind', async (t) => {
  const error = new JobAbortedError('timeout', 'too long')
  t.match(error, { name: 'AbortError', code: 'FST_BG_ABORTED', reason: 'timeout', message: 'too long' })
  t.type(error, Error)
})

test('the final states are those that only a retry leaves', async (t) => {
  for (const [state, next] of Object.entries(MOVES) as Array<[JobState, readonly JobState[]]>) {
    t.equal(isFinal(state), state === 'failed' || next.length === 0, state)
  }
})

test('an instant has a text, even beyond the end of all dates', async (t) => {
  t.equal(iso(0), '1970-01-01T00:00:00.000Z')
  t.doesNotThrow(() => iso(8.64e15 + 1))
})
