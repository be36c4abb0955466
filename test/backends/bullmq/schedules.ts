/** Schedules that processes share. */
import { Redis } from 'ioredis'
import { test } from 'tap'
import type { Backend } from '../../../lib/backend.ts'
import type { KeptSchedule, Schedule } from '../../../lib/schedule.ts'
import { TestClock } from '../../support/clock.ts'
import { Bench } from '../../support/contract.ts'
import { deferred } from '../../support/harness.ts'
import { plain } from './interop.ts'
import { newSpace, type Store } from './store.ts'

const EVERY = 1_000
const rule = { pattern: null, every: EVERY, tz: 'UTC', overlap: 'allow', missed: 'once', startDate: null, endDate: null, limit: null } as const
export const often: Schedule = { id: 'often', name: 'task', queue: 'default', payload: 1, bytes: 1, rule }

type Teardown = { teardown (run: () => unknown): unknown }

/** It makes a job at each time. */
export async function firing (t: Teardown, backend: Backend): Promise<Bench> {
  const bench = new Bench(backend, new TestClock(), 100)
  bench.onFire = (kept) => ({ job: bench.job({ name: kept.name, payload: kept.payload }), next: kept.next + EVERY, skipped: undefined })
  await bench.start()
  t.teardown(() => bench.backend.close())
  return bench
}

async function processesOn (t: Teardown, store: Store, count: number): Promise<Bench[]> {
  const options = store.options(newSpace())
  return Promise.all(Array.from({ length: count }, () => firing(t, store.create(options))))
}

export function schedulesOn (store: Store): Promise<unknown> {
  return test(`schedules that processes share on ${store.kind.name}`, { buffered: true }, async (t) => {
    t.test('each time is asked about in one process, also in one that heard of the schedule from another', async (t) => {
      const [first, second] = await processesOn(t, store, 2) as [Bench, Bench]
      for (const { backend } of [first, second]) backend.want('default', 100)
      await first.backend.schedules?.put(often, Date.now() + EVERY)
      await first.backend.schedules?.put(often, Date.now() + EVERY)
      const asked = (): number[] => [first, second].flatMap((bench) => bench.asked.map(({ kept }) => kept.next))
      await first.until(() => asked().length >= 4, 'four times')
      t.equal(new Set(asked()).size, asked().length)
      await first.backend.schedules?.remove('often')
      await first.rest()
      await first.until(() => first.delivered.length + second.delivered.length === asked().length, 'a job for each time, and no more')
    })

    t.test('a time that had come is kept when the schedule is changed before anybody works', async (t) => {
      const [early, late] = await processesOn(t, store, 2) as [Bench, Bench]
      await early.backend.schedules?.put(often, Date.now() + EVERY)
      const [{ next } = { next: NaN }] = await early.backend.schedules?.list() ?? []
      await early.pass(EVERY)
      await early.backend.schedules?.put({ ...often, payload: 2 }, Date.now() + EVERY)
      late.backend.want('default', 1)
      const { payload } = await late.take()
      t.equal(payload, 2)
      await late.until(() => late.asked.some(({ kept }) => kept.next === next), 'the time that had come')
    })

    if (store.kind.name === 'redis') t.test('a time that had come is kept when a process dies that has just changed the schedule', async (t) => {
      const client = new Redis(store.url, { maxRetriesPerRequest: null })
      t.teardown(() => { client.disconnect() })
      const prefix = newSpace()
      const dying = await firing(t, store.create({ connection: client, prefix, callTimeout: 200 }))
      const heir = await firing(t, store.create({ prefix }))
      await dying.backend.schedules?.put(often, Date.now() + EVERY)
      const [{ next } = { next: NaN }] = await dying.backend.schedules?.list() ?? []
      await dying.pass(EVERY)
      const send = client.sendCommand.bind(client)
      let left = Infinity
      client.sendCommand = (command, stream) => left-- > 0 ? send(command, stream) : new Promise(() => {})
      dying.onNextTime = (_rule, after) => {
        left = 1 // what is asked for when the next time is known
        return after + EVERY
      }
      await t.rejects(Promise.resolve(dying.backend.schedules?.put({ ...often, payload: 2 }, Date.now() + EVERY)), { code: 'FST_BG_STORE_UNAVAILABLE' })
      heir.backend.want('default', 1)
      await heir.until(() => heir.asked.length > 2, 'some times')
      t.equal(heir.asked[0]?.kept.next, next)
    })

    t.test('what somebody else wrote beside the schedules is left alone, and the store is not away', async (t) => {
      const options = store.options(newSpace())
      const bench = await firing(t, store.create(options))
      const { schedules } = bench.backend
      const queue = plain(t, store, options).queue('fastify-background-tasks-schedules')
      const odd = await Promise.all([null, 5, {}, { schedule: 'often' }, { schedule: { ...often, rule: 1 }, salt: '', base: 1 }].map((data) => queue.add('odd', data)))
      await queue.upsertJobScheduler('odd', { every: 3_600_000 }, { data: { schedule: null } })
      await queue.getBackend().setQueueMeta({ 'background-last:often': '{"id":' })
      bench.backend.want('default', 1)
      await schedules?.put(often, Date.now() + EVERY)
      t.match(await schedules?.list(), [{ id: 'often', lastJobId: null }])
      await bench.take()
      for (const { id } of odd) await bench.until(async () => await queue.getJobState(id as string) === 'failed', 'the end of what is none of ours')
      t.notOk(bench.incidents.some(({ kind }) => kind === 'lost'))
    })

    t.test('a job that is made while the schedule is being put is its last job', async (t) => {
      const [puts, works] = await processesOn(t, store, 2) as [Bench, Bench]
      const fire = works.onFire
      works.onFire = (kept) => works.asked.length === 1 ? fire(kept) : undefined
      const last = async (): Promise<KeptSchedule | undefined> => (await works.backend.schedules?.list())?.[0]
      await puts.backend.schedules?.put(often, Date.now() + EVERY)
      const [asked, answered] = [deferred(), deferred()]
      puts.onNextTime = async (_rule, after) => {
        asked.resolve()
        await answered.promise
        return after + 3_600_000
      }
      const put = puts.backend.schedules?.put({ ...often, payload: 2 }, Date.now() + EVERY)
      await asked.promise
      works.backend.want('default', 1)
      const { job } = await works.take()
      await works.until(async () => (await last())?.lastJobId === job.id, 'its job')
      answered.resolve()
      await put
      t.match(await last(), { payload: 2, lastJobId: job.id })
    })
  })
}
