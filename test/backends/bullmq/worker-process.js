// A worker of its own process, as built: tells what its jobs do. Ends when it is told, or when nobody is there to tell.
import Fastify from 'fastify'
import { backgroundTasks } from 'fastify-background-tasks'
import { bullmq } from 'fastify-background-tasks/bullmq'

const app = Fastify()
await app.register(backgroundTasks, { backend: bullmq(JSON.parse(process.argv[2])), role: 'worker', concurrency: 3 })

const tell = (what, id = '') => { process.send?.({ what, id, pid: process.pid }) }

/** What was let go, by its id; of what runs, how to do so. */
const over = new Set()
const running = new Map()

// Says who did it; takes until its id or its `gate` is let go, or its signal aborts.
app.background.define('work', async ({ gate }, { job, signal }) => {
  const until = gate ?? job.id
  tell('started', job.id)
  await new Promise((resolve) => {
    if (over.has(until)) return resolve()
    running.set(until, [...running.get(until) ?? [], resolve])
    signal.addEventListener('abort', () => {
      tell('aborted', job.id)
      resolve()
    })
  })
  tell('ended', job.id)
  return { by: process.pid }
})
await app.ready()
tell('ready')

process.on('message', ({ letGo }) => {
  if (letGo === undefined) return void app.close().then(() => { process.disconnect() })
  over.add(letGo)
  for (const resolve of running.get(letGo) ?? []) resolve()
})
process.on('disconnect', () => { process.exit() })
