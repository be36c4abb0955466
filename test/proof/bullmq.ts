/**
 * Redis and PostgreSQL are away for long, both at once, while jobs are added all the time: nothing that was accepted may
 * be lost, no time of a schedule that came may be without its job, and the process must neither grow nor spin. `node .proof/test/proof/bullmq.js [seconds]`; 600 without.
 */
import Fastify from 'fastify'
import { backgroundTasks } from '../../lib/index.ts'
import { storeAt } from '../backends/bullmq/store.ts'
import { eventually, realTime } from '../support/real-time.ts'
import { startServer, type Kind } from '../support/servers/find.ts'
import { postgres } from '../support/servers/postgres.ts'
import type { OwnServer } from '../support/servers/process.ts'
import { redis } from '../support/servers/redis.ts'

const SECONDS = Number(process.argv[2] ?? 600)
/** MB more than before. */
const MOST_GROWTH = 60
/** Of one core. */
const MOST_CPU = 0.2

const megabytes = (): number => process.memoryUsage().rss / 1e6

/** An application that is fed with jobs until it is asked for its sums. */
async function fed (kind: Kind, url: string, server: OwnServer) {
  const app = Fastify()
  const backend = storeAt(kind, url).create({ callTimeout: 1_000 })
  await app.register(backgroundTasks, { backend, concurrency: 5 })
  const work = app.background.define('work', async () => { await realTime(20) })
  const times = new Set<string>()
  const tick = app.background.define('tick', async (_payload, { job }) => { times.add(job.id) })
  await app.ready()
  await app.background.schedule('often', { every: 100, overlap: 'allow' }, tick)
  const came = async (): Promise<number> => (await backend.schedules?.list())?.[0]?.count ?? NaN
  const accepted: string[] = []
  let refused = 0
  let feeding = true
  const over = (async () => {
    for (; feeding; await realTime(20)) await app.background.add(work).then(({ id }) => { accepted.push(id) }, () => { refused++ })
  })()
  const isDone = async (id: string): Promise<boolean> => (await app.background.get(id).catch(() => undefined))?.state === 'completed'
  return {
    server,
    async sums (): Promise<boolean> {
      feeding = false
      await over
      let done = 0
      // A job whose worker lost its connection starts again when its lock is over: twice 30 s at most.
      for (const id of accepted) await eventually(() => isDone(id), id, 60_000).then(() => { done++ }, () => {})
      const due = await came()
      await eventually(() => times.size >= due, `${due} times`, 60_000).catch(() => {})
      await app.close()
      console.log(`${kind.name} away for ${SECONDS} s: ${accepted.length} accepted, ${done} done, ${refused} refused; ${due} times of a schedule, ${times.size} jobs of it`)
      return done === accepted.length && refused > 0 && times.size >= due
    }
  }
}

const applications: Array<Awaited<ReturnType<typeof fed>>> = []
for (const kind of [redis, postgres]) {
  const found = await startServer(kind)
  if (typeof found !== 'string') applications.push(await fed(kind, found.url, found.server))
}
await realTime(2_000)
const before = megabytes()
for (const { server } of applications) await server.stop()
const cpu = process.cpuUsage()
let most = 0
for (let second = 0; second < SECONDS; second++) {
  await realTime(1_000)
  most = Math.max(most, megabytes())
}
const { user, system } = process.cpuUsage(cpu)
for (const { server } of applications) await server.start()
await realTime(3_000)
let fine = true
for (const application of applications) fine = await application.sums() && fine
for (const { server } of applications) await server.remove()
const used = (user + system) / 1e6 / SECONDS
if (most - before > MOST_GROWTH || used > MOST_CPU) fine = false
console.log(`meanwhile: ${Math.round(before)} MB before, ${Math.round(most)} MB at most; ${(100 * used).toFixed(1)} % of a core: ${fine ? 'fine' : 'not fine'}`)
process.exit(fine ? 0 : 1)
