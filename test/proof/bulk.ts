/**
 * 100 000 jobs in one call, on each backend: how long it takes, and the longest the event loop stands still meanwhile. What a
 * bulk may hold it is `LIMIT`. `node .proof/test/proof/bulk.js [jobs]`; wants an idle machine.
 */
import Fastify from 'fastify'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { backgroundTasks, memory, type Backend } from '../../lib/index.ts'
import { sqlite } from '../../lib/backends/sqlite/index.ts'
import { storeAt } from '../backends/bullmq/store.ts'
import { startServer } from '../support/servers/find.ts'
import { postgres } from '../support/servers/postgres.ts'
import { redis } from '../support/servers/redis.ts'
import { noSqlite } from '../support/sqlite.ts'

const JOBS = Number(process.argv[2] ?? 100_000)
/** Ms. */
const LIMIT = 15

const { threadCpuUsage } = process as { threadCpuUsage?: () => { user: number, system: number } }
/** Ms of CPU of this thread, where Node tells them: on a busy machine a turn takes longer than the loop is held. */
function spent (): number {
  if (threadCpuUsage === undefined) return performance.now()
  const { user, system } = threadCpuUsage()
  return (user + system) / 1_000
}

/** What the turns of the loop took, the longest first. */
function watchTurns (): () => number[] {
  const gaps: number[] = []
  let last = spent()
  let on = true
  const turn = (): void => {
    const now = spent()
    if (now - last > 1) gaps.push(now - last)
    last = now
    if (on) setImmediate(turn)
  }
  turn()
  return () => {
    on = false
    return gaps.sort((a, b) => b - a)
  }
}

async function measure (name: string, backend: Backend): Promise<boolean> {
  const app = Fastify()
  await app.register(backgroundTasks, { backend, maxQueueSize: 2 * JOBS, maxQueueBytes: 2 ** 30 })
  const task = app.background.define<{ to: string, i: number }>('mail', async () => {})
  await app.ready()
  await app.background.pause()
  const jobs = (count: number) => Array.from({ length: count }, (_, i) => ({ name: task, payload: { to: `somebody-${i}@example.org`, i } }))
  await app.background.addBulk(jobs(2_000)) // compiled
  const all = jobs(JOBS)
  const stop = watchTurns()
  const start = performance.now()
  await app.background.addBulk(all)
  const ms = performance.now() - start
  const gaps = stop()
  const over = gaps.filter((gap) => gap > LIMIT).length
  const { waiting } = (await app.background.counts())['default'] as { waiting: number }
  const fine = waiting === JOBS + 2_000 && over <= 2 // a collection of garbage, another process on the core
  console.log(`${name}: ${JOBS} jobs in ${Math.round(ms)} ms, ${Math.round(JOBS / ms)}/ms; longest turns ${gaps.slice(0, 5).map((gap) => gap.toFixed(1)).join(', ')} ms; ` +
    `${over} over ${LIMIT} ms${fine ? '' : ': not fine'}`)
  await app.close()
  return fine
}

const answers = [await measure('memory', memory())]
if (noSqlite === false) {
  const folder = mkdtempSync(join(tmpdir(), 'background-bulk-'))
  for (const synchronous of ['full', 'normal'] as const) answers.push(await measure(`sqlite ${synchronous}`, sqlite({ path: join(folder, `${synchronous}.db`), synchronous })))
  rmSync(folder, { recursive: true })
} else console.log(noSqlite)
for (const kind of [redis, postgres]) {
  const found = await startServer(kind)
  if (typeof found === 'string') continue
  answers.push(await measure(`bullmq on ${kind.name}`, storeAt(kind, found.url).create()))
  await found.release()
}
process.exit(answers.every(Boolean) ? 0 : 1)
