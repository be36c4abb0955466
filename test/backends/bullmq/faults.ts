/** What happens while a store is away, in short; for both stores, on servers of the tests' own. `npm run proof:bullmq` is long. */
import t, { type Test } from 'tap'
import { completed } from '../../support/contract.ts'
import { deferred } from '../../support/harness.ts'
import { eventually, realTime } from '../../support/real-time.ts'
import { startServer, type Kind } from '../../support/servers/find.ts'
import { PASSWORD } from '../../support/servers/process.ts'
import { appOn } from './cluster.ts'
import { firing, often } from './schedules.ts'
import { storeAt } from './store.ts'

const AWAY = 'the store of the background jobs is away'
const BACK = 'the store of the background jobs is back'
/** Ms. On a busy machine a store that is there may take this long. */
const CALL = 1_000
/** Ms. A store that is away for longer loses locks, and their jobs run again. */
const LOCK = 6_000
/** Ms in which a call that is bounded by it has ended there. */
const BOUND = CALL + 5_000

/** An application that is fed until somebody asks for `done`, with a note of what was acknowledged and what ran. */
async function underLoad (t: Test, kind: Kind, url: string) {
  const { app, lines } = await appOn(storeAt(kind, url).create({ callTimeout: CALL, lockDuration: LOCK }), { concurrency: 5 })
  const acknowledged: string[] = []
  const refused: unknown[] = []
  const runs = new Map<string, number>()
  let longest = 0
  const task = app.background.define('work', { attempts: 5, backoff: 100 }, async (_payload, { job }) => {
    await realTime(20)
    runs.set(job.id, (runs.get(job.id) ?? 0) + 1)
  })
  app.post('/', async (_request, reply) => reply.accepted(task))
  let feeding = true
  t.teardown(() => {
    feeding = false
    return app.close()
  })
  await app.ready()
  const fed = (async () => {
    for (; feeding; await realTime(10)) {
      const before = performance.now()
      await app.background.add(task).then(({ id }) => { acknowledged.push(id) }, (error: unknown) => { refused.push(error) })
      longest = Math.max(longest, performance.now() - before)
    }
  })()
  return {
    app,
    lines,
    refused,
    acknowledged,
    runs,
    get longest () { return longest },
    said: (text: string): number => lines.filter(({ msg }) => msg === text).length,
    status: async (): Promise<string> => (await app.inject('/health/jobs')).json().status,
    async goOn (): Promise<void> {
      const before = acknowledged.length
      await eventually(() => acknowledged.length > before + 10, 'jobs to be accepted')
    },
    async stop (): Promise<void> {
      feeding = false
      await fed
    }
  }
}

/** A schedule beside the load. */
async function underSchedule (t: Test, kind: Kind, url: string) {
  let reading = (): void => {}
  const codec = {
    encode: (text: string) => text,
    decode (text: string) {
      reading()
      return text
    }
  }
  // Its locks end while the store is away: what it has in hand comes back to this process.
  const bench = await firing(t, storeAt(kind, url).create({ callTimeout: CALL, lockDuration: 1_000, maxStalledCount: 100, codec }))
  const fire = bench.onFire
  bench.onFire = (kept) => fire({ ...kept, payload: kept.count })
  bench.onDeliver = (attempt) => { void bench.settle(attempt, completed) }
  bench.backend.want('default', 5)
  await bench.backend.schedules?.put({ ...often, rule: { ...often.rule, every: 300 } }, 0)
  return {
    /** Calls it while the tick of a time is in hand, or its job. */
    during: (begin: () => Promise<void>): Promise<void> => new Promise((resolve) => {
      reading = () => {
        reading = () => {}
        resolve(begin())
      }
    }),
    /** Some more times come, and none of all is without its job. */
    async goOn (): Promise<void> {
      const more = Math.max(...bench.asked.map(({ kept }) => kept.count)) + 3
      const made = (): Set<unknown> => new Set(bench.delivered.map(({ payload }) => payload))
      await bench.until(() => Array.from({ length: more }, (_, count) => count).every((count) => made().has(count)), `${more} times`)
    }
  }
}

/** `cut`: ends all connections but its own. */
export function faultsOn (kind: Kind, cut: (url: string) => Promise<void>): Promise<unknown> {
  return t.test(`${kind.name} goes away under load, and comes back`, { buffered: true }, async (t) => {
    const found = await startServer(kind)
    if (typeof found === 'string') return t.plan(0, found)
    t.teardown(found.release)
    const { server } = found
    const load = await underLoad(t, kind, found.url)
    await load.goOn()
    const schedule = await underSchedule(t, kind, found.url)
    let longestAway = 0

    for (const { name, begin, end } of [
      { name: 'stopped', begin: () => server.stop(), end: () => server.start() },
      { name: 'paused', begin: async () => { server.pause() }, end: async () => { server.resume() } }
    ]) {
      t.test(`it is ${name}: requests meet a bounded wait and 503, health is degraded, the log says so once`, async (t) => {
        const before = await load.app.inject({ method: 'POST', url: '/' })
        t.equal(before.statusCode, 202)
        let [refused, away, back] = [0, 0, 0]
        const gone = performance.now()
        await schedule.during(() => {
          ;[refused, away, back] = [load.refused.length, load.said(AWAY), load.said(BACK)]
          return begin()
        })
        await eventually(() => load.refused.length > refused, 'a refusal')
        const started = performance.now()
        const answers = await Promise.all([
          load.app.inject({ method: 'POST', url: '/' }), load.app.inject(before.json().statusUrl as string), load.app.inject('/health/jobs')
        ])
        t.ok(performance.now() - started < BOUND)
        t.strictSame(answers.map(({ statusCode }) => statusCode), [503, 503, 200])
        t.equal(await load.status(), 'degraded')
        const known = load.app.background.stats().then(({ reachable }) => reachable)
        t.equal(await Promise.race([known, new Promise((resolve) => { setImmediate(resolve, 'the store is asked') })]), false, 'a scrape does not wait for a store that is known to be away')
        await eventually(() => load.refused.length > refused + 1, 'one more')
        t.equal(load.said(AWAY), away + 1)
        await end()
        await eventually(() => load.said(BACK) === back + 1, 'the store to be found')
        longestAway = Math.max(longestAway, performance.now() - gone)
        await load.goOn()
        t.equal(await load.status(), 'ok')
        await schedule.goOn()
        for (const error of load.refused) t.match(error, { code: 'FST_BG_STORE_UNAVAILABLE', statusCode: 503 })
      })
    }

    t.test('its connections are cut', async () => {
      for (let times = 0; times < 2; times++) {
        await cut(found.url)
        await load.goOn()
      }
    })

    // PostgreSQL may still renew a lock that has ended, if nobody has noticed.
    if (kind.name === 'redis') t.test('a job whose lock was lost comes back to its process: that is no absence of the store, and the process can end', async (t) => {
      const { app, lines } = await appOn(storeAt(kind, found.url).create({ callTimeout: CALL, lockDuration: 1_000, maxStalledCount: 10 }), { concurrency: 5 })
      const ends = deferred()
      let begun = 0
      const task = app.background.define('long', () => {
        begun++
        return ends.promise
      })
      t.teardown(() => {
        ends.resolve()
        server.resume()
        return app.close()
      })
      await app.ready()
      const said = (text: string): number => lines.filter(({ msg }) => msg === text).length
      await app.background.add(task)
      await eventually(() => begun === 1, 'the job to begin')
      server.pause()
      await realTime(2_000)
      server.resume()
      await eventually(() => begun === 2, 'the job to come back', 30_000)
      await eventually(() => said(AWAY) === said(BACK), 'the store to be found')
      const away = said(AWAY)
      await realTime(1_500) // locks are renewed each half of their time
      t.equal(said(AWAY), away)
      ends.resolve()
      let closed = false
      void app.close().then(() => { closed = true })
      await eventually(() => closed, 'the close', 20_000)
    })

    t.test('then all that was acknowledged has been done, once where no lock was lost; the password is nowhere', async (t) => {
      await load.stop()
      const { acknowledged, runs, app } = load
      const isDone = async (id: string): Promise<boolean> => (await app.background.get(id).catch(() => undefined))?.state === 'completed'
      for (const id of acknowledged) await eventually(() => isDone(id), `job ${id}`)
      t.strictSame(acknowledged.filter((id) => !runs.has(id)), [])
      if (longestAway < LOCK) t.strictSame(acknowledged.filter((id) => runs.get(id) !== 1), [])
      t.ok(load.longest < BOUND, `the longest call took ${Math.round(load.longest)} ms`)
      t.notMatch(JSON.stringify([load.lines, load.refused.map((error) => [String(error), (error as Error).stack, error])]), PASSWORD)
    })
  })
}
