/** What a sequence of the model test consists of: plain data, so that a counterexample can be kept as it was printed. */
import fc from 'fast-check'

/** How a body ends. `odd` and `huge` are results that cannot be kept; `refused` is an error `retryIf` says no to. */
export type How = 'done' | 'odd' | 'huge' | 'throw' | 'refused' | 'unrecoverable' | 'http' | { later: number, counted: boolean }
/** An attempt: ends at once, or waits for a `settle`; then this is what it does when its signal aborts. */
export type Step = { how: How } | { wait: 'ignores' | 'returns' | 'throws' }
export type WhenName = 'handled' | 'success' | 'error' | 'always' | 'below 400' | 'throws'
export type QueueName = 'default' | 'mail' | 'api'

export interface Spec {
  kind: 'task' | 'inline'
  /** One for each attempt; further attempts complete. */
  steps: Step[]
  queue: QueueName
  priority: number
  /** Characters of padding in a task's payload. */
  pad: number
  attempts: number
  /** Below 0: exponential, from the absolute value. */
  backoff: number
  timeout: number
  delay: number
  /** Instead of `delay`: an instant this far from now. */
  runAt: number | null
  ttl: number
  when: WhenName
  onAbort: 'run' | 'drop'
  group: 'a' | 'b' | null
  /** Its deduplication id, and ms; 0: while it lives. Left out of what is staged. */
  once: { id: 'x' | 'y', ttl: number } | null
}

/** A job of a flow, a parent before its children. `up`: 0: child of the one before it; else so many levels above that. */
export interface Member {
  spec: Spec
  up: number
  ignored: boolean
}

/** `at` chooses among what is there, by its remainder. */
export type Op =
  | { op: 'add', spec: Spec }
  | { op: 'bulk', specs: Spec[] }
  | { op: 'flow', members: Member[] }
  | { op: 'request', specs: Spec[] }
  /** Another job for a reply that is open, or over. */
  | { op: 'stage', at: number, spec: Spec }
  | { op: 'respond', at: number, end: 'ok' | 'status' | 'throw' }
  /** The client leaves; its handler goes on until `respond`. */
  | { op: 'leave', at: number }
  | { op: 'settle', at: number, how: How }
  | { op: 'cancel', at: number }
  /** A `settle` and a `cancel` of its job in the same turn of the loop. */
  | { op: 'race', at: number, how: How }
  | { op: 'pause', queue: QueueName | null }
  | { op: 'resume', queue: QueueName | null }
  /** A dead letter, or all of them. */
  | { op: 'retry', at: number | null, rate: number | null, dryRun: boolean }
  | { op: 'remove', at: number | null }
  | { op: 'finished', at: number }
  | { op: 'idle' }
  | { op: 'advance', ms: number }
  /** Of the wall clock alone. */
  | { op: 'jump', ms: number }

export const SETTINGS = {
  concurrency: 3,
  queues: { mail: { concurrency: 2, groups: { concurrency: 1, limiter: { max: 2, duration: 700 } } }, api: { concurrency: 2, limiter: { max: 2, duration: 1_000 } } },
  maxQueueSize: 5,
  maxQueueBytes: 150,
  maxPayloadBytes: 100,
  retention: { completed: { count: 4, age: 20_000 }, failed: { count: 3, age: 60_000 } },
  drainTimeout: 3_000,
  abortGrace: 500,
  maxHold: 4_000
} as const

/** Mostly the plain value: interesting cases are those where one or two things are special. */
function mostly<T> (plain: T, ...others: T[]): fc.Arbitrary<T> {
  return fc.oneof({ weight: 2, arbitrary: fc.constant(plain) }, { weight: 1, arbitrary: fc.constantFrom(...others) })
}

const how: fc.Arbitrary<How> = fc.oneof(
  { weight: 3, arbitrary: fc.constant('done' as const) },
  { weight: 4, arbitrary: fc.constantFrom<How>('throw', 'odd', 'huge', 'refused', 'unrecoverable', 'http') },
  { weight: 2, arbitrary: fc.record({ later: fc.constantFrom(0, 10, 700), counted: fc.boolean() }) }
)
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ how }),
  fc.record({ wait: mostly<'ignores' | 'returns' | 'throws'>('ignores', 'returns', 'throws') })
)

const spec: fc.Arbitrary<Spec> = fc.record({
  kind: fc.constantFrom('task' as const, 'inline' as const),
  steps: fc.array(step, { maxLength: 4 }),
  queue: fc.constantFrom('default' as const, 'mail' as const, 'api' as const),
  priority: mostly(0, -1, 1, 2),
  pad: mostly(0, 60),
  attempts: mostly(2, 1, 3),
  backoff: mostly(100, 0, -300, 1_000),
  timeout: mostly(0, 50, 400),
  delay: mostly(0, 1, 60, 999, 1_000),
  runAt: mostly<number | null>(null, -5, 80, 2_000),
  ttl: mostly(0, 0, 30, 500),
  when: mostly<WhenName>('handled', 'success', 'error', 'always', 'below 400', 'throws'),
  onAbort: mostly<Spec['onAbort']>('run', 'drop'),
  group: mostly<Spec['group']>(null, 'a', 'b'),
  once: mostly<Spec['once']>(null, { id: 'x', ttl: 0 }, { id: 'y', ttl: 0 }, { id: 'y', ttl: 500 })
})
const at = fc.nat({ max: 99 })
const queue = mostly<QueueName | null>(null, 'default', 'mail', 'api')

const op: fc.Arbitrary<Op> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ op: fc.constant('add' as const), spec }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('bulk' as const), specs: fc.array(spec, { maxLength: 4 }) }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('flow' as const), members: fc.array(fc.record({ spec, up: mostly(1, 0, 2), ignored: mostly(false, true) }), { minLength: 1, maxLength: 4 }) }) },
  { weight: 4, arbitrary: fc.record({ op: fc.constant('request' as const), specs: fc.array(spec, { maxLength: 3 }) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('stage' as const), at, spec }) },
  { weight: 4, arbitrary: fc.record({ op: fc.constant('respond' as const), at, end: mostly<'ok' | 'status' | 'throw'>('ok', 'status', 'throw') }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('leave' as const), at }) },
  { weight: 6, arbitrary: fc.record({ op: fc.constant('settle' as const), at, how }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('cancel' as const), at }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('race' as const), at, how }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('pause' as const), queue }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('resume' as const), queue }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('retry' as const), at: mostly<number | null>(null, 0, 1), rate: mostly<number | null>(5, null, 1), dryRun: mostly(false, true) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('remove' as const), at: mostly<number | null>(0, 1, null) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('finished' as const), at }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('idle' as const) }) },
  { weight: 6, arbitrary: fc.record({ op: fc.constant('advance' as const), ms: fc.constantFrom(1, 10, 50, 100, 400, 501, 1_000, 5_000) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('jump' as const), ms: fc.constantFrom(-3_600_000, -1, 5_000, 86_400_000) }) }
)

export const plans: fc.Arbitrary<Op[]> = fc.array(op, { minLength: 1, maxLength: 40, size: 'max' })
