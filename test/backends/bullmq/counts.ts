/** Counting many jobs, which BullMQ has no names for, and finding some of them. */
import { Redis } from 'ioredis'
import { PostgresConnection, type PostgresConnectionOptions } from 'bullmq'
import { test, type Test } from 'tap'
import type { Incident, JobQuery, Tally } from '../../../lib/backend.ts'
import { tallyOf } from '../../../lib/backends/bullmq/counts.ts'
import { idsIn, namesIn, nextDelayed } from '../../../lib/backends/bullmq/glance.ts'
import type { BullmqOptions } from '../../../lib/backends/bullmq/index.ts'
import type { BullmqQueue } from '../../../lib/backends/bullmq/queue.ts'
import { Reach } from '../../../lib/backends/bullmq/reach.ts'
import { DeadLetterRoom } from '../../../lib/backends/bullmq/retention.ts'
import { systemClock } from '../../../lib/clock.ts'
import { TestClock } from '../../support/clock.ts'
import { Bench, dead } from '../../support/contract.ts'
import { plain } from './interop.ts'
import type { Store } from './store.ts'

async function benchOn (t: Test, { create, options }: Store, more?: Partial<BullmqOptions>): Promise<{ bench: Bench, given: BullmqOptions, tally: () => Promise<Tally[]> }> {
  // Thousands of jobs go in one call, on whatever machine.
  const given = { ...options(), callTimeout: 60_000, ...more }
  const bench = new Bench(create(given), new TestClock(), 100)
  await bench.start()
  t.teardown(() => bench.backend.close())
  const tally = async (): Promise<Tally[]> => (await bench.backend.tally?.() ?? []).sort((a, b) => a.state < b.state || (a.state === b.state && a.task < b.task) ? -1 : 1)
  return { bench, given, tally }
}

const times = <T>(count: number, make: (n: number) => T): T[] => Array.from({ length: count }, (_, n) => make(n))

export function countsOn (store: Store): Promise<unknown> {
  const { kind } = store
  // In Redis names and ids are read a thousand at a time, and 2 000 ids are kept; PostgreSQL tells 2 000.
  const [beyond, middle] = kind.name === 'redis' ? [1_100, 2_050] : [100, 1_050]
  return test(`counting many jobs on ${kind.name}`, { buffered: true }, async (t) => {
    t.test('a state of thousands is counted by task, also beyond the delayed jobs that are looked at', async (t) => {
      const { bench, tally } = await benchOn(t, store)
      await bench.enqueue(...times(1_200, (n) => ({ name: n % 3 === 0 ? 'greet' : 'bill', delay: 3_600_000 })))
      await bench.enqueue(...times(beyond, (n) => ({ name: n < 50 ? 'bill' : 'mail' })))
      t.strictSame(await tally(), [
        { queue: 'default', task: 'bill', state: 'delayed', jobs: 800 },
        { queue: 'default', task: 'greet', state: 'delayed', jobs: 400 },
        { queue: 'default', task: 'bill', state: 'waiting', jobs: 50 },
        { queue: 'default', task: 'mail', state: 'waiting', jobs: beyond - 50 }
      ])
    })

    t.test('so many of a place are counted, from one of them on', async (t) => {
      const { bench, given } = await benchOn(t, store)
      await bench.enqueue(...times(6, (n) => ({ name: n < 2 ? 'bill' : 'mail', delay: 60_000 + n })))
      const queue = plain(t, store, given).queue()
      t.strictSame(Object.fromEntries(await namesIn(queue, 'delayed', 1, 3)), { bill: 1, mail: 2 })
      t.strictSame((await nextDelayed(queue, 3)).map(({ name }) => name), ['bill', 'bill', 'mail'])
    })

    t.test('of many dead letters a look at the retention reads the oldest alone', async (t) => {
      const { bench, given } = await benchOn(t, store)
      const queue = plain(t, store, given).queue()
      let read = 0
      const getJobs = queue.getJobs.bind(queue)
      queue.getJobs = async (...asked) => {
        const jobs = await getJobs(...asked)
        read += jobs.length
        return jobs
      }
      bench.backend.want('default', 10)
      bench.onDeliver = (attempt) => { void bench.settle(attempt, dead) }
      await bench.enqueue(...times(60, () => ({ name: 'bill' })))
      await bench.until(async () => (await bench.backend.counts()).default?.failed === 60, 'the end of all')
      const left: string[] = []
      const sink = { deliver () {}, abort () {}, report (incident: Incident) { left.push(incident.kind) } }
      const reach = new Reach({ clock: systemClock, callTimeout: 10_000, probe: async () => {}, lost () {}, back () {} })
      const room = new DeadLetterRoom({ store: queue, jobOf: () => ({}) } as unknown as BullmqQueue, { count: 57, age: 3_600_000 }, { clock: systemClock, sink, reach })
      await room.sweep()
      t.strictSame([left, read], [['evicted', 'evicted', 'evicted'], 4])
      reach.close()
    })

    t.test('what nobody reads the names of has no task', async (t) => {
      const { bench, given } = await benchOn(t, store)
      await bench.enqueue({ name: 'bill' }, { name: 'mail' })
      const queue = plain(t, store, given).queue()
      queue.getJobCounts = async () => ({ prioritized: 12_000 })
      const tally = await tallyOf(queue, 'default', { limited: 0 }, Date.now())
      t.strictSame(Object.fromEntries(tally.map(({ task, jobs }) => [task, jobs])), { bill: 1, mail: 1, '': 11_998 })
    })

    t.test('a store of a BullMQ that keeps jobs in another way is counted without tasks, and is not away', async (t) => {
      const { bench, given, tally } = await benchOn(t, store)
      const id = await bench.add({ delay: 60_000 })
      await change(store, given, id)
      t.strictSame(await tally(), [{ queue: 'default', task: '', state: 'delayed', jobs: 1 }])
      t.match((await bench.backend.counts()).default, { delayed: 1, retrying: 0 })
      const { ids } = await idsIn(plain(t, store, given).queue(), 'delayed', { name: 'task', after: undefined, newestFirst: false }, undefined)
      t.strictSame(ids, [id])
      t.strictSame(bench.incidents, [])
    })

    t.test('of thousands the next ones are listed, in order, each once', async (t) => {
      const { bench } = await benchOn(t, store)
      const many = 2 * middle
      const ids = await bench.enqueue(...times(many, (n) => ({ priority: n % 7, delay: n % 2 === 0 ? 0 : 3_600_000 })))
      const [even, odd] = [0, 1].map((rest) => ids.filter((_, n) => n % 2 === rest)) as [string[], string[]]
      const list = async (query: Partial<JobQuery>): Promise<string[]> => (await bench.backend.list({ limit: 30, ...query })).map(({ id }) => id)
      t.strictSame(await list({}), ids.slice(0, 30))
      t.strictSame(await list({ newestFirst: true }), ids.slice(-30).reverse())
      const [before, after] = [ids[middle - 1], ids[middle]] as [string, string]
      t.strictSame(await list({ after: before }), ids.slice(middle, middle + 30))
      t.strictSame(await list({ after, newestFirst: true, states: ['waiting'] }), even.filter((id) => id < after).slice(-30).reverse())
      t.strictSame(await list({ states: ['delayed'], limit: many }), odd)
      t.strictSame(await list({ limit: many + 1 }), ids)
    })

    t.test('jobs of other tasks are not read for the list of one task', async (t) => {
      let read = 0
      const decode = (text: string): string => {
        read++
        return text
      }
      const { bench } = await benchOn(t, store, { codec: { encode: (text) => text, decode } })
      await bench.enqueue(...times(300, () => ({ name: 'mail' })), { name: 'bill' })
      t.match(await bench.backend.list({ limit: 10, name: 'bill' }), [{ name: 'bill' }])
      t.ok(read < 10, `${read} payloads were read`)
    })
  })
}

/** As another BullMQ might have it. */
async function change ({ kind, url }: Store, { prefix, connection }: BullmqOptions, id: string): Promise<void> {
  if (kind.name === 'redis') {
    const client = new Redis(url)
    await client.set(`${prefix}:default:${id}`, 'another way')
    client.disconnect()
  } else {
    const { pool, schema } = new PostgresConnection(connection as PostgresConnectionOptions)
    await pool.query(`ALTER TABLE "${schema}".job RENAME name TO title`)
    await pool.end()
  }
}
