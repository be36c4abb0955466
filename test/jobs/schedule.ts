/** Schedules as applications see them: when they fire, and what becomes of times that cannot be kept. */
import 'croner' // loaded before any test looks at what is open
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { memory, type ScheduleOptions } from '../../lib/index.ts'
import { TestClock } from '../support/clock.ts'
import { DurableBackend } from '../support/durable.ts'
import { closeInTime, deferred, setup, type Harness, type HarnessOptions } from '../support/harness.ts'
import { seed } from '../support/seed.ts'

fc.configureGlobal({ seed })

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

interface Place extends Harness {
  clock: TestClock
  /** Wall times at which the task ran. */
  ran: string[]
}

/** With a task that tells when it ran, at a time of day that is given. */
async function at (t: Test, now: string, options: HarnessOptions = {}, body: () => unknown = () => {}): Promise<Place> {
  const clock = new TestClock(Date.parse(now))
  const harness = await setup(t, { backend: memory({ clock }), ...options })
  const ran: string[] = []
  harness.background.define('report', () => {
    ran.push(new Date(clock.now()).toISOString().replace(':00.000', ''))
    return body()
  })
  await harness.app.ready()
  return { ...harness, clock, ran }
}

async function nextOf ({ background }: Harness): Promise<string | null | undefined> {
  return (await background.schedules())[0]?.next
}

t.test('a pattern makes a job at each of its times, with its payload', async (t) => {
  const p = await at(t, '2026-01-01T11:58:30Z')
  const made = await p.background.schedule('noon', { pattern: '0 12 * * *' }, 'report', { to: 'ada' })
  t.match(made, { id: 'noon', name: 'report', queue: 'default', payload: { to: 'ada' }, pattern: '0 12 * * *', tz: 'UTC', overlap: 'skip', missed: 'skip', next: '2026-01-01T12:00:00.000Z', count: 0, lastJobId: null })
  await p.clock.advance(DAY + 2 * MINUTE)
  t.strictSame(p.ran, ['2026-01-01T12:00Z', '2026-01-02T12:00Z'])
  const [{ next, count, lastJobId, lastAt } = {} as typeof made] = await p.background.schedules()
  t.strictSame([next, count, lastAt], ['2026-01-03T12:00:00.000Z', 2, '2026-01-02T12:00:00.000Z'])
  t.match(await p.background.get(lastJobId as string), { state: 'completed', payload: { to: 'ada' }, requestId: null })
})

t.test('when clocks go forward, a local time that is left out comes at the end of the gap', async (t) => {
  const p = await at(t, '2026-03-27T12:00:00Z')
  await p.background.schedule('early', { pattern: '30 2 * * *', tz: 'Europe/Berlin' }, 'report')
  await p.clock.advance(3 * DAY)
  t.strictSame(p.ran, ['2026-03-28T01:30Z', '2026-03-29T01:00Z', '2026-03-30T00:30Z'])
})

t.test('when clocks go forward, intervals go on in real time', async (t) => {
  const p = await at(t, '2026-03-29T00:20:00Z')
  await p.background.schedule('quarters', { pattern: '*/30 * * * *', tz: 'Europe/Berlin' }, 'report')
  await p.clock.advance(2 * HOUR)
  t.strictSame(p.ran, ['2026-03-29T00:30Z', '2026-03-29T01:00Z', '2026-03-29T01:30Z', '2026-03-29T02:00Z'])
})

t.test('when clocks go back, a local time that comes twice is kept once, and intervals go on in real time', async (t) => {
  const p = await at(t, '2026-10-24T12:00:00Z')
  await p.background.schedule('early', { pattern: '30 2 * * *', tz: 'Europe/Berlin' }, 'report')
  await p.clock.advance(2 * DAY)
  t.strictSame(p.ran, ['2026-10-25T00:30Z', '2026-10-26T01:30Z'])
  const hourly = await at(t, '2026-10-24T23:30:00Z')
  await hourly.background.schedule('hourly', { pattern: '0 * * * *', tz: 'Europe/Berlin' }, 'report')
  await hourly.clock.advance(3 * HOUR)
  t.strictSame(hourly.ran, ['2026-10-25T00:00Z', '2026-10-25T01:00Z', '2026-10-25T02:00Z'])
})

t.test('leap days and the ends of months', async (t) => {
  const cases: Array<[pattern: string, now: string, ran: string, next: string]> = [
    ['0 0 29 2 *', '2028-02-28T23:00:00Z', '2028-02-29T00:00Z', '2032-02-29T00:00:00.000Z'],
    ['0 6 L * *', '2026-01-31T05:00:00Z', '2026-01-31T06:00Z', '2026-02-28T06:00:00.000Z'],
    ['0 6 L * *', '2028-02-29T05:00:00Z', '2028-02-29T06:00Z', '2028-03-31T06:00:00.000Z'],
    ['0 0 31 * *', '2026-03-30T23:00:00Z', '2026-03-31T00:00Z', '2026-05-31T00:00:00.000Z'],
    ['0 0 1 1 *', '2026-12-31T23:00:00Z', '2027-01-01T00:00Z', '2028-01-01T00:00:00.000Z']
  ]
  for (const [pattern, now, ran, next] of cases) {
    const p = await at(t, now)
    await p.background.schedule('x', { pattern }, 'report')
    await p.clock.advance(2 * HOUR)
    t.strictSame([p.ran, await nextOf(p)], [[ran], next], pattern)
  }
})

t.test('`every` counts from 1970, or from its start', async (t) => {
  const p = await at(t, '2026-01-01T11:58:30Z')
  await p.background.schedule('often', { every: 10 * MINUTE }, 'report')
  await p.clock.advance(15 * MINUTE)
  t.strictSame(p.ran.splice(0), ['2026-01-01T12:00Z', '2026-01-01T12:10Z'])
  await p.background.unschedule('often')
  await p.background.schedule('from then on', { every: 10 * MINUTE, startDate: '2026-01-01T12:25:00Z', endDate: '2026-01-01T12:45:00Z' }, 'report')
  await p.clock.advance(HOUR)
  t.strictSame(p.ran, ['2026-01-01T12:25Z', '2026-01-01T12:35Z', '2026-01-01T12:45Z'])
  t.strictSame(await p.background.schedules(), [], 'it is over')
})

t.test('a schedule ends with its limit; one that is over is not kept', async (t) => {
  const p = await at(t, '2026-01-01T00:00:30Z')
  await p.background.schedule('thrice', { pattern: '* * * * *', limit: 3 }, 'report')
  await p.clock.advance(10 * MINUTE)
  t.equal(p.ran.length, 3)
  t.strictSame(await p.background.schedules(), [])
  t.match(await p.background.schedule('past', { every: MINUTE, endDate: '2025-01-01' }, 'report'), { next: null, endDate: '2025-01-01T00:00:00.000Z' })
  t.strictSame(await p.background.schedules(), [])
})

t.test('overlap: skip leaves out the times at which the last job has not ended, and says so', async (t) => {
  const end = deferred()
  const p = await at(t, '2026-01-01T00:00:30Z', { defaults: { timeout: 0 } }, () => end.promise)
  await p.background.schedule('slow', { every: MINUTE }, 'report', null)
  await p.clock.advance(3 * MINUTE)
  t.equal(p.ran.length, 1)
  end.resolve()
  await p.clock.advance(MINUTE)
  t.strictSame(p.ran, ['2026-01-01T00:01Z', '2026-01-01T00:04Z'])
  t.match(p.said('schedule skipped: its last job has not ended'), [{ level: 40, schedule: 'slow', task: 'report', queue: 'default', count: 1 }, { count: 1 }])
  t.match((await p.app.inject('/health/jobs')).json(), { incidents: { skipped: 2 } })
  t.match(await p.background.schedules(), [{ count: 4 }])
})

t.test('overlap: skip counts a job that waits for its retry as one that has not ended', async (t) => {
  const p = await at(t, '2026-01-01T00:00:30Z', { defaults: { attempts: 2, backoff: 90_000 } }, () => { throw new Error('boom') })
  await p.background.schedule('fails', { every: MINUTE }, 'report')
  await p.clock.advance(3 * MINUTE)
  t.strictSame(p.ran, ['2026-01-01T00:01Z', '2026-01-01T00:02:30.000Z', '2026-01-01T00:03Z'])
})

t.test('overlap: queue lets one time wait for the last job, however long', async (t) => {
  const ends = [deferred(), deferred()]
  const p = await at(t, '2026-01-01T00:00:30Z', { defaults: { timeout: 0 } }, () => ends[p.ran.length - 1]?.promise)
  t.match(await p.background.schedule('slow', { every: MINUTE, overlap: 'queue' }, 'report'), { missed: 'once' })
  await p.clock.advance(5 * MINUTE + 10_000)
  t.strictSame(p.ran, ['2026-01-01T00:01Z'])
  t.match(await p.background.schedules(), [{ next: '2026-01-01T00:02:00.000Z' }], 'the time that waits')
  ends[0]?.resolve()
  await p.clock.advance(2_000)
  t.equal(p.ran.length, 2)
  t.match(await p.background.schedules(), [{ next: '2026-01-01T00:06:00.000Z' }])
  ends[1]?.resolve()
})

t.test('overlap: allow runs them side by side', async (t) => {
  const end = deferred()
  const p = await at(t, '2026-01-01T00:00:30Z', { defaults: { timeout: 0 } }, () => end.promise)
  await p.background.schedule('slow', { every: MINUTE, overlap: 'allow' }, 'report')
  await p.clock.advance(3 * MINUTE)
  t.equal(p.ran.length, 3)
  end.resolve()
})

t.test('missed: times at which nobody was there are left out, or made up for once', async (t) => {
  const options: Array<[ScheduleOptions, string[]]> = [
    [{ every: 10 * MINUTE }, ['2026-01-01T03:10Z']],
    [{ every: 10 * MINUTE, missed: 'once' }, ['2026-01-01T03:05Z', '2026-01-01T03:10Z']]
  ]
  for (const [given, expected] of options) {
    const p = await at(t, '2026-01-01T00:05:00Z')
    await p.background.schedule('often', given, 'report')
    p.clock.jump(3 * HOUR) // the machine slept
    await p.clock.advance(9 * MINUTE)
    t.strictSame(p.ran.map((time) => time.replace(/:\d\d\.000Z/, 'Z')), expected)
    t.equal(p.said('schedule skipped: nobody was there at its time').length, given.missed === 'once' ? 0 : 1)
  }
})

t.test('a time that is a little late is kept, also after others that were missed', async (t) => {
  const p = await at(t, '2026-01-01T00:05:00Z')
  await p.background.schedule('often', { every: 10 * MINUTE }, 'report')
  p.clock.jump(3 * HOUR + 5 * MINUTE + 20_000)
  await p.clock.advance(30_000)
  t.equal(p.ran.length, 1)
  t.equal(await nextOf(p), '2026-01-01T03:20:00.000Z')
})

t.test('a clock that is set back brings no time twice', async (t) => {
  const p = await at(t, '2026-01-01T00:00:30Z')
  await p.background.schedule('often', { every: MINUTE }, 'report')
  await p.clock.advance(3 * MINUTE)
  p.clock.jump(-2 * MINUTE)
  await p.clock.advance(3 * MINUTE)
  t.strictSame(p.ran, ['2026-01-01T00:01Z', '2026-01-01T00:02Z', '2026-01-01T00:03Z', '2026-01-01T00:04Z'])
})

t.test('a time that waits for the job before it is not held up by a clock that is set back', async (t) => {
  const ends: Array<() => void> = []
  const p = await at(t, '2026-01-01T00:00:30Z', { defaults: { timeout: 0 } }, () => new Promise<void>((resolve) => { ends.push(resolve) }))
  await p.background.schedule('often', { every: MINUTE, overlap: 'queue' }, 'report')
  await p.clock.advance(10 * MINUTE)
  t.equal(ends.length, 1)
  p.clock.jump(-5 * MINUTE)
  ends[0]?.()
  await p.clock.advance(31_000)
  t.equal(ends.length, 2)
  ends[1]?.()
})

t.test('a full queue holds a time back until there is room, and then it is late or missed', async (t) => {
  const p = await at(t, '2026-01-01T00:00:30Z', { maxQueueSize: 1 })
  await p.background.pause()
  const { id } = await p.background.add(() => {})
  await p.background.schedule('often', { every: 5 * MINUTE }, 'report')
  await p.background.schedule('rarely', { pattern: '5 0 * * *', missed: 'once' }, 'report')
  await p.clock.advance(4 * MINUTE + 40_000)
  t.match(await p.background.schedules(), [{ count: 0 }, { count: 0 }])
  await p.clock.advance(MINUTE)
  await p.background.cancel(id)
  await p.clock.advance(2_000)
  t.match(await p.background.schedules(), [{ count: 1, lastJobId: null }, { count: 1, lastJobId: String }])
  t.equal(p.said('schedule skipped: nobody was there at its time').length, 1)
})

t.test('put again at each start, a schedule goes on; with other times it begins anew', async (t) => {
  const p = await at(t, '2026-01-01T00:00:30Z')
  const again = (options: ScheduleOptions, payload: unknown) => p.background.schedule('often', options, 'report', payload)
  await again({ every: MINUTE }, 1)
  await p.clock.advance(MINUTE)
  p.clock.jump(5_000)
  t.match(await again({ every: MINUTE, missed: 'once' }, 2), { count: 1, payload: 2, missed: 'once', next: '2026-01-01T00:02:00.000Z', lastJobId: String })
  t.match(await again({ every: HOUR }, 2), { count: 0, next: '2026-01-01T01:00:00.000Z', lastJobId: null })
  t.equal(await p.background.unschedule('often'), true)
  t.equal(await p.background.unschedule('often'), false)
  await p.clock.advance(2 * HOUR)
  t.equal(p.ran.length, 1)
})

t.test('whatever the clocks do, no time comes twice, none too early, none is forgotten, and jobs overlap only where they may', async (t) => {
  type Step = { advance: number } | { jump: number } | { end: true } | { again: true }
  const steps: fc.Arbitrary<Step[]> = fc.array(fc.oneof(
    { weight: 4, arbitrary: fc.integer({ min: 1, max: 10 * MINUTE }).map((advance) => ({ advance })) },
    { weight: 2, arbitrary: fc.integer({ min: -HOUR, max: HOUR }).map((jump) => ({ jump })) },
    { weight: 2, arbitrary: fc.constant({ end: true } as const) },
    { weight: 1, arbitrary: fc.constant({ again: true } as const) }
  ), { maxLength: 25 })
  const rules = fc.record({
    when: fc.constantFrom<ScheduleOptions>({ every: 3 * MINUTE }, { pattern: '*/5 * * * *' }, { pattern: '0 * * * *', tz: 'Europe/Berlin' }, { every: 90_000, limit: 5 }),
    overlap: fc.constantFrom('skip', 'queue', 'allow'),
    start: fc.constantFrom('2026-03-29T00:50:00Z', '2026-10-25T00:10:00Z', '2028-02-28T23:30:00Z')
  })
  const { failed, counterexample, errorInstance } = await fc.check(fc.asyncProperty(rules, steps, async ({ when, overlap, start }, sequence) => {
    const ends: Array<() => void> = []
    const clock = new TestClock(Date.parse(start))
    const backend = memory({ clock })
    const { background, app } = await setup(t, { backend, concurrency: 100, defaults: { timeout: 0 } })
    let most = 0
    background.define('report', () => new Promise<void>((resolve) => { most = Math.max(most, ends.push(resolve)) }))
    await app.ready()
    const put = () => background.schedule('x', { ...when, overlap }, 'report')
    let last = Date.parse((await put()).next as string)
    let latest = clock.now()
    let fired = 0
    for (const step of sequence) {
      if ('advance' in step) await clock.advance(step.advance)
      else if ('jump' in step) clock.jump(step.jump)
      else if ('again' in step && (await background.schedules()).length > 0) await put()
      else ends.splice(0).forEach((end) => { end() })
      await clock.settle()
      latest = Math.max(latest, clock.now())
      const [kept] = await background.schedules()
      if (kept === undefined) break
      const next = Date.parse(kept.next as string)
      if (kept.count > fired && last > latest) throw new Error(`${new Date(last).toISOString()} came too early`)
      if (next > latest + HOUR) throw new Error(`times before ${kept.next} were left out`)
      const held = overlap === 'queue' && ends.length > 0
      if ('advance' in step && step.advance >= MINUTE && next <= clock.now() && !held) throw new Error(`${kept.next} was forgotten`)
      if (next < last) throw new Error(`went back to ${kept.next}`)
      if (kept.count > 0 && kept.lastAt !== null && Date.parse(kept.lastAt) >= next) throw new Error(`${kept.next} came twice`)
      if (kept.limit !== undefined && kept.count >= kept.limit) throw new Error('more than its limit')
      last = next
      fired = kept.count
    }
    if (overlap !== 'allow' && most > 1) throw new Error(`${most} at once`)
    for (const end of ends.splice(0)) end()
    await closeInTime(app, clock)
  }), { numRuns: 40, interruptAfterTimeLimit: 20_000 })
  t.notOk(failed, JSON.stringify(counterexample), { error: String(errorInstance) })
})

t.test('what makes no sense is refused, and nothing is kept', async (t) => {
  const p = await at(t, '2026-01-01T00:00:00Z')
  const refused: Array<[args: unknown[], code: string, text: RegExp]> = [
    [['', { every: MINUTE }, 'report'], 'FST_BG_BAD_OPTION', /schedule\(id\)/],
    [['x', {}, 'report'], 'FST_BG_BAD_OPTION', /schedule\("x"\): expected either pattern or every, got none/],
    [['x', { every: MINUTE, pattern: '* * * * *' }, 'report'], 'FST_BG_BAD_OPTION', /got both/],
    [['x', undefined, 'report'], 'FST_BG_BAD_OPTION', /an object of options/],
    [['x', { every: 99 }, 'report'], 'FST_BG_BAD_OPTION', /every: expected an integer from 100/],
    [['x', { every: MINUTE, tz: 'UTC' }, 'report'], 'FST_BG_BAD_OPTION', /tz/],
    [['x', { pattern: 'now and then' }, 'report'], 'FST_BG_BAD_OPTION', /schedule\("x"\)\.pattern: expected a cron pattern, got "now and then"/],
    [['x', { pattern: '61 * * * *' }, 'report'], 'FST_BG_BAD_OPTION', /pattern/],
    [['x', { pattern: '* * * * *', tz: 'Mars/Base' }, 'report'], 'FST_BG_BAD_OPTION', /tz: expected an IANA time zone/],
    [['x', { every: MINUTE, overlap: 'queue', missed: 'skip' }, 'report'], 'FST_BG_BAD_OPTION', /missed/],
    [['x', { every: MINUTE, startDate: 'soon' }, 'report'], 'FST_BG_BAD_OPTION', /startDate/],
    [['x', { every: MINUTE, limit: 0 }, 'report'], 'FST_BG_BAD_OPTION', /limit/],
    [['x', { cron: '* * * * *' }, 'report'], 'FST_BG_UNKNOWN_OPTION', /"cron"/],
    [['x', { every: MINUTE }, 'reprot'], 'FST_BG_UNKNOWN_TASK', /"reprot"/],
    [['x', { every: MINUTE }, 'report', 1n], 'FST_BG_PAYLOAD_NOT_JSON', /BigInt/]
  ]
  for (const [args, code, message] of refused) {
    await t.rejects((p.background.schedule as (...args: unknown[]) => Promise<unknown>)(...args), { code, message }, String(message))
  }
  t.strictSame(await p.background.schedules(), [])
})

t.test('before the application is ready, and where the backend keeps none, schedules are refused by name', async (t) => {
  const early = await setup(t)
  early.background.define('report', () => {})
  const call = (harness: Harness) => harness.background.schedule('x', { every: MINUTE }, 'report')
  await t.rejects(call(early), { code: 'FST_BG_NOT_READY' })
  await t.rejects(early.background.schedules(), { code: 'FST_BG_NOT_READY' })
  await early.app.ready()
  await t.resolves(call(early))
  const other = await setup(t, { backend: new DurableBackend() })
  other.background.define('report', () => {})
  await other.app.ready()
  await t.rejects(call(other), { code: 'FST_BG_NOT_SUPPORTED', message: /schedule\(\) is not supported by the backend "durable"/ })
  t.strictSame(await other.background.schedules(), [])
})

t.test('a schedule stands where its task stands, and follows it', async (t) => {
  const clock = new TestClock()
  const [mail, usual] = [memory({ clock }), memory({ clock })]
  const p = await setup(t, { backend: usual, queues: { mail: { backend: mail } } })
  p.background.define('here', () => {})
  p.background.define('there', { queue: 'mail' }, () => {})
  await p.app.ready()
  await p.background.schedule('b', { every: MINUTE }, 'there')
  await p.background.schedule('a', { every: MINUTE }, 'here')
  t.match(await p.background.schedules(), [{ id: 'a', queue: 'default' }, { id: 'b', queue: 'mail' }])
  await p.background.schedule('b', { every: MINUTE }, 'here')
  t.match(await p.background.schedules(), [{ id: 'a', queue: 'default' }, { id: 'b', queue: 'default' }])
  await clock.advance(2 * MINUTE)
  t.match(await p.background.counts(), { default: { completed: 4 }, mail: { completed: 0 } })
})

t.test('a shutdown ends them: nothing fires while jobs drain, and no timer is left', async (t) => {
  const end = deferred()
  const p = await at(t, '2026-01-01T00:00:30Z', { drainTimeout: 5 * MINUTE, defaults: { timeout: 0 } }, () => end.promise)
  await p.background.schedule('often', { every: MINUTE, overlap: 'allow' }, 'report')
  await p.clock.advance(MINUTE)
  const closing = p.app.close()
  await p.clock.advance(3 * MINUTE)
  t.equal(p.ran.length, 1)
  end.resolve()
  await p.clock.advance(2_000)
  await closing
  t.equal(p.clock.pendingTimers, 0)
})
