// A stop: no more requests, jobs get `drainTimeout`, then their signals abort, and what is left is named. close-with-grace
// calls `close` on SIGTERM and SIGINT, and ends the process if it takes longer than `delay`.
import { setTimeout as wait } from 'node:timers/promises'
import closeWithGrace from 'close-with-grace'
import Fastify from 'fastify'
import backgroundTasks from 'fastify-background-tasks'

const app = Fastify()
// A pool that jobs use: they drain before any onClose hook, wherever it was added.
app.addHook('onClose', async () => { console.log('database closed') })
await app.register(backgroundTasks, {
  drainTimeout: 1_000,
  abortGrace: 100,
  onUnfinished: (jobs) => { console.log('unfinished:', jobs.map(({ name, payload }) => `${name} ${payload}`)) }
})

const task = app.background.define('task', { attempts: 1, timeout: 0 }, async (ms, { signal }) => {
  try {
    await wait(ms, undefined, { signal })
    console.log(`${ms} ms: done`)
  } catch (error) {
    console.log(`${ms} ms: aborted by a ${signal.reason.reason}`)
    throw error
  }
})
app.post('/tasks/:ms', async (request, reply) => reply.accepted(task, Number(request.params.ms)))

closeWithGrace({ delay: 10_000 }, async ({ signal }) => {
  console.log(`stopped by ${signal}`)
  await app.close()
  console.log('closed')
})

const base = await app.listen({ port: 0 })
for (const ms of [500, 60_000]) await (await fetch(`${base}/tasks/${ms}`, { method: 'POST' })).text()
await app.background.add(task, 1, { delay: 60_000 }) // delayed jobs are not waited for
process.kill(process.pid, 'SIGTERM')

// Prints:
// stopped by SIGTERM
// 500 ms: done
// 60000 ms: aborted by a shutdown
// unfinished: [ 'task 60000', 'task 1' ]
// database closed
// closed
