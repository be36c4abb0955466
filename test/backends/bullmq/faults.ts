/** What happens while a store is away; for both stores, on servers of the tests' own. */
import t, { type Test } from 'tap'
import type { Background } from '../../../lib/index.ts'
import { startServer, type Kind } from '../../support/servers/find.ts'
import type { OwnServer } from '../../support/servers/process.ts'
import { appOn, type Line } from './cluster.ts'
import { newSpace } from './store.ts'

const sleep = (ms: number): Promise<void> => new Promise((resolve) => { setTimeout(resolve, ms) })

/** An application that is fed for as long as the test wants, and a note of what was acknowledged and what ran. */
async function underLoad (t: Test, kind: Kind, url: string) {
  const where = { kind: kind.name, url, space: newSpace(), callTimeout: 500, lockDuration: 5_000 }
  const { app, lines } = await appOn(where, { concurrency: 5 })
  const acknowledged: string[] = []
  const refused: unknown[] = []
  const ends = new Map<string, number>()
  let longest = 0
  const task = app.background.define('work', { attempts: 5, backoff: 100 }, async (_payload, { job }) => {
    await sleep(20)
    ends.set(job.id, (ends.get(job.id) ?? 0) + 1)
  })
  t.teardown(() => app.close())
  await app.ready()
  let feeding = true
  const fed = (async () => {
    while (feeding) {
      const before = performance.now()
      try {
        acknowledged.push((await app.background.add(task)).id)
      } catch (error) {
        refused.push(error)
      }
      longest = Math.max(longest, performance.now() - before)
      await sleep(10)
    }
  })()
  return {
    app,
    lines,
    refused,
    acknowledged,
    get longest () { return longest },
    /** Nothing more is added; resolves when all that was acknowledged has been done. */
    async done (): Promise<Record<string, number>> {
      feeding = false
      await fed
      return statesOf(app.background, acknowledged)
    }
  }
}

async function statesOf (background: Background, ids: readonly string[]): Promise<Record<string, number>> {
  for (let tries = 0; ; tries++) {
    const states: Record<string, number> = {}
    for (const id of ids) {
      const state = (await background.get(id))?.state ?? 'lost'
      states[state] = (states[state] ?? 0) + 1
    }
    if (states.completed === ids.length || states.lost !== undefined || tries === 100) return states
    await sleep(200)
  }
}

const said = (lines: readonly Line[], text: string): number => lines.filter(({ msg }) => msg === text).length

/** One way for a store to go, and to come back. */
interface Fault {
  name: string
  begin: (server: OwnServer) => void | Promise<void>
  end: (server: OwnServer) => void | Promise<void>
}

const FAULTS: Fault[] = [
  { name: 'stopped', begin: (server) => server.stop(), end: (server) => server.start() },
  { name: 'paused', begin: (server) => { server.pause() }, end: (server) => { server.resume() } }
]

export async function faultsOn (kind: Kind, cut: (url: string) => Promise<void>): Promise<void> {
  const found = await startServer(kind)
  if (typeof found === 'string') {
    t.plan(0, found)
    return
  }
  t.teardown(found.release)

  for (const { name, begin, end } of FAULTS) {
    t.test(`${kind.name} is ${name} under load: calls are refused in time, nothing acknowledged is lost`, async (t) => {
      const load = await underLoad(t, kind, found.url)
      await sleep(500)
      await begin(found.server)
      const cpu = process.cpuUsage()
      await sleep(4_000)
      const { user, system } = process.cpuUsage(cpu)
      t.ok(load.refused.length > 0, 'calls were refused')
      for (const error of load.refused) t.match(error, { code: 'FST_BG_STORE_UNAVAILABLE', statusCode: 503 })
      t.ok(load.longest < 2_000, `the longest call took ${Math.round(load.longest)} ms`)
      t.ok(user + system < 2_000_000, `used ${Math.round((user + system) / 1_000)} ms of CPU in 4 s`)
      t.equal((await load.app.inject('/health/jobs')).json().status, 'degraded')
      await end(found.server)
      await sleep(3_000)
      const states = await load.done()
      t.strictSame(states, { completed: load.acknowledged.length })
      t.equal((await load.app.inject('/health/jobs')).json().status, 'ok')
      t.ok(said(load.lines, 'the store of the background jobs is away') >= 1 && said(load.lines, 'the store of the background jobs is away') < 10)
      t.ok(said(load.lines, 'the store of the background jobs is back') >= 1)
    })
  }

  t.test(`the connections to ${kind.name} are cut under load: nothing acknowledged is lost`, async (t) => {
    const load = await underLoad(t, kind, found.url)
    for (let n = 0; n < 4; n++) {
      await sleep(500)
      await cut(found.url)
    }
    await sleep(500)
    t.strictSame(await load.done(), { completed: load.acknowledged.length })
  })

  t.test(`a request meets a bounded wait and 503 while ${kind.name} is away`, async (t) => {
    const where = { kind: kind.name, url: found.url, space: newSpace(), callTimeout: 300 }
    const { app } = await appOn(where)
    const task = app.background.define('work', async () => 'done')
    app.post('/', async (_request, reply) => reply.accepted(task))
    t.teardown(() => app.close())
    await app.ready()
    const before = await app.inject({ method: 'POST', url: '/' })
    t.equal(before.statusCode, 202)
    found.server.pause()
    const started = performance.now()
    const answers = await Promise.all([
      app.inject({ method: 'POST', url: '/' }), app.inject(before.json().statusUrl as string), app.inject('/health/jobs')
    ])
    t.ok(performance.now() - started < 2_000)
    t.strictSame(answers.map(({ statusCode }) => statusCode), [503, 503, 200])
    found.server.resume()
  })
}
