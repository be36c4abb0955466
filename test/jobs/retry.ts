import fc from 'fast-check'
import { test } from 'tap'
import { LONGEST_MS, RetryLaterError, UnrecoverableError } from '../../lib/errors.ts'
import type { BackoffPolicy, JobFacts, Outcome, Policy } from '../../lib/job.ts'
import { TASK_DEFAULTS } from '../../lib/job-options.ts'
import { afterThrow, afterTimeout, backoff, type Judged } from '../../lib/jobs/retry.ts'
import { LEVELS, record, setup } from '../support/harness.ts'
import { seed } from '../support/seed.ts'

fc.configureGlobal({ seed })

const FIXED: BackoffPolicy = { type: 'fixed', delay: 70, maxDelay: 70, jitter: 0 }
const policyOf = (parts: Partial<Policy> = {}): Policy => ({ ...TASK_DEFAULTS, attempts: 3, backoff: FIXED, timeout: 50, ...parts })
const jobAt = (attempt: number, attempts = 3): JobFacts => ({
  id: '01900000-0000-7000-8000-000000000000', name: 'task', queue: 'default', attempt, attempts, createdAt: '2026-01-01T00:00:00.000Z', requestId: null
})
const chance = (): number => 0.5
const clock = { now: () => Date.UTC(2026, 0, 1), random: chance }

function judge (thrown: unknown, parts: Partial<Policy> = {}, attempt = 1): Judged {
  const policy = policyOf(parts)
  return afterThrow(thrown, policy, jobAt(attempt, policy.attempts), clock)
}

function delayAfter (thrown: unknown, parts: Partial<Policy> = {}, attempt = 1): number | string {
  const { outcome } = judge(thrown, parts, attempt)
  return outcome.kind === 'retry' ? outcome.delay : outcome.kind
}

/** The verdict without the error's description. */
function short (outcome: Outcome): string {
  if (outcome.kind === 'retry') return `retry in ${outcome.delay}${outcome.charged ? '' : ', not charged'}`
  return outcome.kind === 'dead' ? `dead: ${outcome.failure}` : outcome.kind
}

const boom = new Error('boom')
const later = (countAttempt?: boolean) => new RetryLaterError({ delay: 9, ...(countAttempt === undefined ? {} : { countAttempt }) })
const no = () => false
const yes = () => true
const unrecoverableBrand = Symbol.for('fastify-background-tasks.unrecoverable')
const laterBrand = Symbol.for('fastify-background-tasks.retry-later')

const verdicts: ReadonlyArray<readonly [what: string, thrown: unknown, parts: Partial<Policy>, attempt: number, verdict: string]> = [
  ['an error, attempts left', boom, {}, 1, 'retry in 70'],
  ['an error at the last attempt', boom, {}, 3, 'dead: exhausted'],
  ['an error with one attempt in all', boom, { attempts: 1 }, 1, 'dead: exhausted'],
  ['undefined', undefined, {}, 1, 'retry in 70'],
  ['undefined at the last attempt', undefined, {}, 3, 'dead: exhausted'],
  ['an UnrecoverableError', new UnrecoverableError('no'), {}, 1, 'dead: unrecoverable'],
  ['an UnrecoverableError at the last attempt', new UnrecoverableError('no'), {}, 3, 'dead: unrecoverable'],
  ['an UnrecoverableError, retryIf says yes', new UnrecoverableError('no'), { retryIf: yes }, 1, 'dead: unrecoverable'],
  ['an UnrecoverableError of another copy', { [unrecoverableBrand]: true }, {}, 1, 'dead: unrecoverable'],
  ['its name alone', Object.assign(new Error('no'), { name: 'UnrecoverableError' }), {}, 1, 'retry in 70'],
  ['an error, retryIf says no', boom, { retryIf: no }, 1, 'dead: unrecoverable'],
  ['an error at the last attempt, retryIf says no', boom, { retryIf: no }, 3, 'dead: unrecoverable'],
  ['an error, retryIf says yes', boom, { retryIf: yes }, 1, 'retry in 70'],
  ['an error at the last attempt, retryIf says yes', boom, { retryIf: yes }, 3, 'dead: exhausted'],
  ['a RetryLaterError', later(), {}, 1, 'retry in 9'],
  ['a RetryLaterError at the last attempt', later(), {}, 3, 'dead: exhausted'],
  ['a RetryLaterError, retryIf says no', later(), { retryIf: no }, 1, 'retry in 9'],
  ['a RetryLaterError that is not charged', later(false), {}, 1, 'retry in 9, not charged'],
  ['a RetryLaterError that is not charged, at the last attempt', later(false), {}, 3, 'retry in 9, not charged'],
  ['a RetryLaterError that is not charged, one attempt in all', later(false), { attempts: 1 }, 1, 'retry in 9, not charged'],
  ['a RetryLaterError of another copy', { [laterBrand]: true, delay: 8 }, {}, 1, 'retry in 8'],
  ['a RetryLaterError of another copy, without a delay', { [laterBrand]: true, countAttempt: false }, {}, 1, 'retry in 0, not charged']
]

for (const [what, thrown, parts, attempt, verdict] of verdicts) {
  test(`${what}: ${verdict}`, async (t) => {
    const judged = judge(thrown, parts, attempt)
    t.equal(short(judged.outcome), verdict)
    t.match(judged.outcome, { error: { message: String } })
    t.notOk('policyError' in judged)
  })
}

test('a timeout is retried, whatever retryIf says, until the attempts are used up', async (t) => {
  let asked = 0
  const policy = policyOf({ retryIf: () => { asked++; return false } })
  t.equal(short(afterTimeout(policy, jobAt(1), chance).outcome), 'retry in 70')
  const last = afterTimeout(policy, jobAt(3), chance).outcome
  t.match(last, { kind: 'dead', failure: 'timeout', error: { name: 'TimeoutError', code: 'FST_BG_TIMEOUT', message: /50 ms/ } })
  t.equal(asked, 0)
})

test('policies see the very error that was thrown, and the facts of the attempt', async (t) => {
  const seen: unknown[][] = []
  const parts: Partial<Policy> = {
    retryIf: (...args) => { seen.push(['retryIf', ...args]); return true },
    backoff: (...args) => { seen.push(['backoff', ...args]); return 5 }
  }
  judge(boom, parts, 2)
  t.strictSame(seen, [['retryIf', boom, jobAt(2)], ['backoff', 2, boom, jobAt(2)]])
  t.equal(seen[0]?.[1], boom)
})

test('only false says no', async (t) => {
  for (const answer of [undefined, null, 0, '', 'no', {}]) {
    t.equal(short(judge(boom, { retryIf: () => answer as boolean }).outcome), 'retry in 70')
  }
})

test('a retryIf that throws counts as yes, and is reported', async (t) => {
  const judged = judge(boom, { retryIf: () => { throw new TypeError('no such field') } })
  t.equal(short(judged.outcome), 'retry in 70')
  t.match(judged.policyError, { option: 'retryIf', error: { name: 'TypeError', message: 'no such field' } })
  t.equal(short(judge(boom, { retryIf: () => { throw boom } }, 3).outcome), 'dead: exhausted')
})

// Retry-After

class HttpError extends Error {
  constructor (parts: object) {
    super('503')
    Object.assign(this, parts)
  }
}

const told: ReadonlyArray<readonly [what: string, parts: object, delay: number]> = [
  ['retryAfter in seconds', { retryAfter: 3 }, 3_000],
  ['retryAfter as a text', { retryAfter: '3' }, 3_000],
  ['retryAfter 0', { retryAfter: 0 }, 0],
  ['half a second', { retryAfter: 0.5 }, 500],
  ['a header object', { headers: { 'retry-after': '4' } }, 4_000],
  ['a header object with capitals', { headers: { 'Retry-After': 4 } }, 4_000],
  ['a Headers instance', { headers: new Headers({ 'Retry-After': '5' }) }, 5_000],
  ['headers of the response', { response: { headers: { 'retry-after': '6' } } }, 6_000],
  ['a Headers instance of the response', { response: new Response(null, { headers: { 'retry-after': '6' } }) }, 6_000],
  ['retryAfter before headers', { retryAfter: 1, headers: { 'retry-after': '9' } }, 1_000],
  ['no more than a day', { retryAfter: 1e9 }, 86_400_000],
  ['a negative one: not believed', { retryAfter: -1 }, 70],
  ['no number: not believed', { retryAfter: 'soon' }, 70],
  ['an empty text: not believed', { headers: { 'retry-after': '' } }, 70],
  ['blanks: not believed', { headers: { 'retry-after': '  ' } }, 70],
  ['NaN: not believed', { retryAfter: NaN }, 70],
  ['Infinity: not believed', { retryAfter: Infinity }, 70],
  ['an object: not believed', { retryAfter: { seconds: 3 } }, 70],
  ['headers without it', { headers: new Headers() }, 70],
  ['headers that are none', { headers: 'retry-after: 3' }, 70],
  ['null', { retryAfter: null, headers: null, response: null }, 70],
  ['a get that throws', { headers: { get () { throw boom } } }, 70],
  ['a get that answers nonsense', { headers: { get: () => ({}) } }, 70]
]

for (const [what, parts, delay] of told) {
  test(`Retry-After of a thrown HTTP error, ${what}: ${delay} ms`, async (t) => {
    t.equal(delayAfter(new HttpError(parts)), delay)
  })
}

test('hostile errors ask for nothing', async (t) => {
  const traps = Object.fromEntries(Object.getOwnPropertyNames(Reflect).map((name) => [name, () => { throw boom }]))
  const getters = Object.defineProperties(new Error('x'), Object.fromEntries(
    ['retryAfter', 'headers', 'response'].map((name) => [name, { get () { throw boom } }])))
  for (const thrown of [getters, new Proxy(boom, traps), { headers: new Proxy({}, traps) }, { response: getters }]) t.equal(delayAfter(thrown), 70)
})

test('a Retry-After that is a date is honoured', async (t) => {
  const { app, clock } = await setup(t)
  const at = new Date(clock.now() + 300_000)
  app.background.define('busy', async () => { throw new HttpError({ headers: { 'retry-after': at.toUTCString() } }) })
  await app.ready()
  const { id } = await app.background.add('busy')
  await clock.settle()
  t.equal((await record(app.background, id)).retryAt, at.toISOString())
})

test('a Retry-After makes no attempt that is not there any more', async (t) => {
  t.equal(delayAfter(new HttpError({ retryAfter: 3 }), {}, 3), 'dead')
  t.equal(delayAfter(new HttpError({ retryAfter: 3 }), { retryIf: no }), 'dead')
})

test('a Retry-After is heard before the backoff', async (t) => {
  let asked = 0
  t.equal(delayAfter(new HttpError({ retryAfter: 3 }), { backoff: () => { asked++; return 1 } }), 3_000)
  t.equal(asked, 0)
})

// Backoff

const wait = (policy: BackoffPolicy, attempt: number, random: number): number => backoff(policy, boom, jobAt(attempt), () => random).delay

test('a fixed backoff is always the same', async (t) => {
  t.strictSame([1, 2, 9].map((attempt) => wait(FIXED, attempt, 0.9)), [70, 70, 70])
})

test('an exponential backoff doubles up to maxDelay', async (t) => {
  const policy: BackoffPolicy = { type: 'exponential', delay: 1_000, maxDelay: 10_000, jitter: 0 }
  t.strictSame([1, 2, 3, 4, 5, 999].map((attempt) => wait(policy, attempt, 0.9)), [1_000, 2_000, 4_000, 8_000, 10_000, 10_000])
})

test('a delay is drawn from delay·(1 − jitter) to delay, and never beyond maxDelay', async (t) => {
  const shape = fc.record({
    type: fc.constantFrom('fixed' as const, 'exponential' as const),
    delay: fc.double({ min: 0, max: 1e7, noNaN: true }),
    maxDelay: fc.double({ min: 0, max: 1e8, noNaN: true }),
    jitter: fc.double({ min: 0, max: 1, noNaN: true })
  })
  fc.assert(fc.property(shape, fc.integer({ min: 1, max: 1_000 }), fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (policy, attempt, random) => {
    const full = Math.min(policy.delay * (policy.type === 'fixed' ? 1 : 2 ** (attempt - 1)), policy.maxDelay)
    const drawn = wait(policy, attempt, random)
    return drawn <= full && drawn >= full * (1 - policy.jitter) - 1e-6 && drawn >= 0
  }))
  t.equal(wait({ type: 'fixed', delay: 100, maxDelay: 100, jitter: 0.5 }, 1, 0), 100)
  t.equal(wait({ type: 'fixed', delay: 100, maxDelay: 100, jitter: 0.5 }, 1, 0.5), 75)
  t.equal(wait({ type: 'fixed', delay: 0, maxDelay: 0, jitter: 1 }, 1, 0.5), 0)
})

test('a backoff function says how long', async (t) => {
  t.equal(delayAfter(boom, { backoff: (attempt) => attempt * 11 }, 2), 22)
  t.equal(delayAfter(boom, { backoff: () => 0 }), 0)
})

test('a backoff function that answers nonsense falls back to the default, and is reported', async (t) => {
  for (const answer of [undefined, null, NaN, Infinity, -1, '100', {}, [], 5n, Symbol('x')]) {
    const { outcome, policyError } = judge(boom, { backoff: (() => answer) as () => number })
    t.match(outcome, { kind: 'retry', delay: 750, charged: true }, 'the default of 1 000 ms with half its jitter')
    t.match(policyError, { option: 'backoff', error: { message: /^backoff: expected a number of ms, at least 0, got / } })
  }
})

test('a backoff function that throws falls back to the default, and is reported', async (t) => {
  const { outcome, policyError } = judge(boom, { backoff: () => { throw new TypeError('no such field') } }, 2)
  t.match(outcome, { kind: 'retry', delay: 1_500 })
  t.match(policyError, { option: 'backoff', error: { name: 'TypeError', message: 'no such field' } })
})

test('no verdict waits longer than any duration an option may have', async (t) => {
  const asked = [
    judge(new RetryLaterError({ delay: Number.MAX_VALUE })), judge(new RetryLaterError({ delay: Number.MAX_VALUE, countAttempt: false })),
    judge({ [laterBrand]: true, delay: Infinity }), judge(boom, { backoff: () => 1e300 })
  ]
  for (const { outcome } of asked) t.ok(outcome.kind === 'retry' && outcome.delay <= LONGEST_MS, short(outcome))
})

// In an application

test('a job that keeps failing runs as often as it may, then is a dead letter', async (t) => {
  const { app, clock, ...harness } = await setup(t)
  const attempts: number[] = []
  app.background.define('flaky', { attempts: 3, backoff: { delay: 100, jitter: 0 } }, async (_payload, { job }) => {
    attempts.push(job.attempt)
    throw new Error(`boom ${job.attempt}`)
  })
  await app.ready()
  const { id } = await app.background.add('flaky')
  await clock.settle()
  t.match(await record(app.background, id), { state: 'delayed', delayReason: 'retry', attemptsMade: 1 })
  await clock.advance(100)
  t.strictSame(attempts, [1, 2])
  await clock.advance(199)
  t.strictSame(attempts, [1, 2])
  await clock.advance(1)
  t.strictSame(attempts, [1, 2, 3])
  t.match(await record(app.background, id), {
    state: 'failed', failure: 'exhausted', attemptsMade: 3, error: { message: 'boom 3' }, history: [{ attempt: 1 }, { attempt: 2 }, { attempt: 3 }]
  })
  await clock.advance(1_000) // one cause, one line a second
  t.strictSame(harness.said('attempt failed, the job will be retried').map(({ attempt }) => attempt), [1, 2])
  t.match(harness.said('job failed'), [{ level: LEVELS.error, failure: 'exhausted', attempt: 3, err: { message: 'boom 3' } }])
})

test('a policy that fails is named in the log, and the job goes on', async (t) => {
  const { app, clock, ...harness } = await setup(t)
  app.background.define('flaky', { attempts: 2, retryIf: () => { throw new Error('bad policy') } }, async (_payload, { job }) => {
    if (job.attempt === 1) throw boom
  })
  await app.ready()
  const { id } = await app.background.add('flaky')
  await clock.advance(60_000)
  t.equal((await record(app.background, id)).state, 'completed')
  t.match(harness.said('retryIf failed'), [{ level: LEVELS.error, option: 'retryIf', jobId: id, err: { message: 'bad policy' } }])
})

test('a wait without end does not spoil the lists, nor the shutdown', async (t) => {
  const { app, clock, ...harness } = await setup(t)
  app.background.define('patient', { backoff: () => Number.MAX_VALUE }, async () => { throw boom })
  await app.ready()
  const { id } = await app.background.add('patient')
  await clock.settle()
  t.match(await record(app.background, id), { state: 'delayed' })
  const closing = app.close()
  await clock.advance(10_000)
  await closing
  t.equal(harness.said('shutdown left jobs undone').length, 1)
  t.equal(harness.said('the backend failed to close').length, 0)
})

test('policies that are async by mistake are reported, and lose no rejection', async (t) => {
  const lost: unknown[] = []
  const onRejection = (reason: unknown): void => { lost.push(reason) }
  process.on('unhandledRejection', onRejection)
  t.teardown(() => process.off('unhandledRejection', onRejection))
  const reject = (async () => { throw new Error('too late') }) as unknown as () => never
  t.match(judge(boom, { backoff: reject }), { outcome: { kind: 'retry', delay: 750 }, policyError: { option: 'backoff' } })
  t.match(judge(boom, { retryIf: reject }), { outcome: { kind: 'retry', delay: 70 }, policyError: { option: 'retryIf' } })
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => { setImmediate(resolve) })
  t.strictSame(lost, [])
})

test('the defaults are three attempts, and seconds that double with jitter', async (t) => {
  t.match(TASK_DEFAULTS, { attempts: 3, backoff: { type: 'exponential', delay: 1_000, maxDelay: 60_000, jitter: 0.5 }, timeout: 30_000 })
})
