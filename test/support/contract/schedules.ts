/** What a backend that keeps schedules promises. Times are multiples of `EVERY`, so that real time is waited for briefly. */
import type { ScheduleStore } from '../../../lib/backend.ts'
import type { Firing, KeptSchedule, Schedule, ScheduleRule } from '../../../lib/schedule.ts'
import type { Bench, Promises } from '../contract.ts'

const EVERY = 1_000

/** The first multiple after an instant: what a real rule would answer. */
export function nextTime (rule: ScheduleRule, after: number): number {
  const every = rule.every ?? EVERY
  return (Math.floor(after / every) + 1) * every
}

function make (id: string, more: Partial<Schedule> = {}): Schedule {
  const rule = { pattern: null, every: EVERY, tz: 'UTC', overlap: 'skip', missed: 'skip', startDate: null, endDate: null, limit: null } as const
  return { id, name: `task of ${id}`, queue: 'default', payload: { from: id }, bytes: 12, rule, ...more }
}

const storeOf = (bench: Bench): ScheduleStore => bench.backend.schedules as ScheduleStore

async function put (bench: Bench, schedule: Schedule): Promise<void> {
  await storeOf(bench).put(schedule, nextTime(schedule.rule, bench.now()))
}

/** A job each time, and on to the next. */
const always = (bench: Bench) => (kept: KeptSchedule): Firing => ({
  job: bench.job({ name: kept.name, queue: kept.queue, payload: kept.payload }),
  next: nextTime(kept.rule, Math.max(bench.now(), kept.next)),
  skipped: undefined
})

const NEEDS = { needs: 'schedules' } as const

export function scheduleContract (promise: Promises): void {
  promise('schedules are listed by id, with what was given and their next time, until they are removed', async (t, bench) => {
    const store = storeOf(bench)
    const [b, a] = [make('b: with a colon', { queue: 'other', payload: null, bytes: 4 }), make('a')]
    await put(bench, b)
    await put(bench, a)
    t.match(await store.list(), [{ ...a, count: 0, lastJobId: null, lastAt: null, next: Number }, { ...b, count: 0 }])
    const [{ next } = { next: NaN }] = await store.list()
    t.ok(next % EVERY === 0 && next > bench.now() - EVERY && next <= bench.now() + EVERY, `${next}`)
    t.equal(await store.remove('a'), true)
    t.equal(await store.remove('a'), false)
    t.strictSame((await store.list()).map(({ id }) => id), [b.id])
  }, NEEDS)

  promise('when its time has come a schedule is asked about, and its job is added, which is reported', async (t, bench) => {
    bench.onFire = (kept) => bench.asked.length === 1 ? always(bench)(kept) : undefined
    bench.backend.want('default', 1)
    await put(bench, make('often'))
    const [{ next: first } = { next: NaN }] = await storeOf(bench).list()
    await bench.pass(EVERY)
    const { job, payload } = await bench.take()
    t.match(job, { name: 'task of often', queue: 'default', requestId: null })
    t.strictSame(payload, { from: 'often' })
    t.match(bench.asked[0], { kept: { id: 'often', next: first, count: 0 }, alive: false })
    await bench.until(() => bench.incidents.length > 0, 'the report')
    t.match(bench.incidents, [{ kind: 'fired', job: { id: job.id, name: 'task of often' } }])
    await bench.until(async () => {
      const [kept] = await storeOf(bench).list()
      return kept !== undefined && kept.lastJobId === job.id && kept.count >= 1 && (kept.lastAt ?? 0) >= first
    }, 'the job of the schedule')
  }, NEEDS)

  promise('a schedule is asked about at each of its times, once, and told whether its last job has ended', async (t, bench) => {
    bench.onFire = always(bench)
    bench.backend.want('default', 2)
    await put(bench, make('often'))
    await bench.pass(2 * EVERY)
    await bench.until(() => bench.asked.some(({ alive }) => alive), 'a time while the last job runs')
    t.equal(bench.asked[0]?.alive, false)
    const before = bench.asked.length
    bench.onDeliver = (attempt) => { void bench.backend.settle(attempt, { kind: 'completed' }) }
    for (const attempt of bench.delivered) bench.onDeliver(attempt)
    await bench.pass(EVERY)
    await bench.until(() => bench.asked.slice(before).some(({ alive }) => !alive), 'a time after the end of the last job')
    const times = bench.asked.map(({ kept: { next } }) => next)
    t.equal(new Set(times).size, times.length)
  }, NEEDS)

  promise('a time may pass without a job, which is reported', async (t, bench) => {
    bench.onFire = (kept) => ({ ...always(bench)(kept), job: undefined, skipped: 'overlap' })
    bench.backend.want('default', 1)
    await put(bench, make('often'))
    await bench.pass(EVERY)
    await bench.until(() => bench.incidents.length > 0, 'the report')
    t.match(bench.incidents[0], { kind: 'skipped', schedule: { id: 'often', name: 'task of often' }, why: 'overlap' })
    await bench.until(async () => (await storeOf(bench).list())[0]?.lastJobId === null, 'the list')
    t.equal(bench.delivered.length, 0)
  }, NEEDS)

  promise('a schedule that cannot fire now is asked about again', async (t, bench) => {
    bench.onFire = (kept) => bench.asked.length < 2 ? undefined : always(bench)(kept)
    bench.backend.want('default', 1)
    await put(bench, make('held back'))
    await bench.pass(EVERY + 1_000)
    await bench.take()
    const times = (): Array<number | undefined> => bench.asked.map(({ kept }) => kept.next)
    await bench.until(() => times().lastIndexOf(times()[0]) > 0, 'the time that was held back')
    t.ok(bench.asked.length >= 2)
  }, NEEDS)

  promise('a schedule without a next time is over', async (t, bench) => {
    bench.onFire = (kept) => ({ ...always(bench)(kept), next: undefined })
    bench.backend.want('default', 5)
    await put(bench, make('once'))
    await bench.pass(EVERY)
    await bench.take()
    await bench.until(async () => (await storeOf(bench).list()).length === 0, 'its end')
    await bench.pass(EVERY)
    t.equal(bench.delivered.length, 1)
  }, NEEDS)

  promise('put again, a schedule keeps its count and its time while its timing is the same', async (t, bench) => {
    const store = storeOf(bench)
    bench.onFire = always(bench)
    bench.backend.want('default', 1)
    await put(bench, make('often'))
    await bench.pass(EVERY)
    await bench.until(() => bench.asked.length > 0, 'the first time')
    await bench.until(async () => (await store.list())[0]?.lastJobId !== null, 'its job')
    await store.put(make('often', { payload: 'new' }), 8e12)
    const [kept] = await store.list()
    t.match(kept, { payload: 'new', lastJobId: String })
    t.ok((kept?.count ?? 0) >= 1 && (kept?.next ?? 0) < bench.now() + 2 * EVERY)
    const rare = make('often', { rule: { ...make('often').rule, every: 3_600_000 } })
    await put(bench, rare)
    t.match(await store.list(), [{ next: nextTime(rare.rule, bench.now()), count: 0, rule: { every: 3_600_000 } }])
    await store.put(make('often', { rule: { ...rare.rule, limit: 1 } }), undefined)
    t.strictSame(await store.list(), [])
  }, NEEDS)

  promise('removed, a schedule fires no more', async (t, bench) => {
    bench.onFire = always(bench)
    bench.backend.want('default', 1)
    // Not the next time, which may come before the removal.
    await storeOf(bench).put(make('often'), nextTime(make('often').rule, bench.now()) + EVERY)
    t.equal(await storeOf(bench).remove('often'), true)
    await bench.pass(3 * EVERY)
    t.strictSame(bench.asked, [])
  }, NEEDS)
}
