/**
 * Redis and PostgreSQL are away for long, while jobs are added all the time: nothing that was accepted may be lost, and
 * the process must neither grow nor spin. `node .proof/test/proof/bullmq.js [seconds]`; 600 without.
 */
import Fastify from 'fastify'
import { backgroundTasks } from '../../lib/index.ts'
import { storeAt } from '../backends/bullmq/store.ts'
import { startServer, type Kind } from '../support/servers/find.ts'
import { postgres } from '../support/servers/postgres.ts'
import { redis } from '../support/servers/redis.ts'

const SECONDS = Number(process.argv[2] ?? 600)
/** MB more than before. */
const MOST_GROWTH = 60
/** Of one core. */
const MOST_CPU = 0.2

const sleep = (ms: number): Promise<void> => new Promise((resolve) => { setTimeout(resolve, ms) })
const megabytes = (): number => process.memoryUsage().rss / 1e6

async function away (kind: Kind): Promise<boolean> {
  const found = await startServer(kind)
  if (typeof found === 'string') return true
  const app = Fastify()
  await app.register(backgroundTasks, { backend: storeAt(kind, found.url).create({ callTimeout: 1_000 }), concurrency: 5 })
  const work = app.background.define('work', async () => { await sleep(20) })
  await app.ready()
  const accepted: string[] = []
  let refused = 0
  let feeding = true
  const fed = (async () => {
    for (; feeding; await sleep(20)) {
      await app.background.add(work).then(({ id }) => { accepted.push(id) }, () => { refused++ })
    }
  })()
  await sleep(2_000)
  const before = megabytes()
  await found.server.stop()
  const cpu = process.cpuUsage()
  let most = 0
  for (let second = 0; second < SECONDS; second++) {
    await sleep(1_000)
    most = Math.max(most, megabytes())
  }
  const { user, system } = process.cpuUsage(cpu)
  await found.server.start()
  await sleep(3_000)
  feeding = false
  await fed
  let done = 0
  for (let tries = 0; done < accepted.length && tries < 60; tries++) {
    await sleep(500)
    done = 0
    for (const id of accepted) if ((await app.background.get(id).catch(() => undefined))?.state === 'completed') done++
  }
  await app.close()
  await found.release()
  const used = (user + system) / 1e6 / SECONDS
  const fine = done === accepted.length && most - before < MOST_GROWTH && used < MOST_CPU
  console.log(`${kind.name} away for ${SECONDS} s: ${accepted.length} accepted, ${done} done, ${refused} refused; ` +
    `${Math.round(before)} MB before, ${Math.round(most)} MB at most; ${(100 * used).toFixed(1)} % of a core${fine ? '' : ': not fine'}`)
  return fine
}

const fine = [await away(redis), await away(postgres)].every(Boolean)
process.exit(fine ? 0 : 1)
