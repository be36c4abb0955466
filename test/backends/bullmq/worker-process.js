// A worker of its own process, as built: tells what its jobs do. Ends when it is told, or when nobody is there to tell.
import Fastify from 'fastify'
import { backgroundTasks } from 'fastify-background-tasks'
import { bullmq } from 'fastify-background-tasks/bullmq'

const app = Fastify()
await app.register(backgroundTasks, { backend: bullmq(JSON.parse(process.argv[2])), role: 'worker', concurrency: 3 })

const tell = (what, id = '') => { process.send?.({ what, id, pid: process.pid }) }

// Says who did it; takes as long as it is asked to, or until its signal aborts.
app.background.define('work', async ({ ms }, { job, signal }) => {
  tell('started', job.id)
  await new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener('abort', () => {
      clearTimeout(timer)
      tell('aborted', job.id)
      resolve()
    })
  })
  tell('ended', job.id)
  return { by: process.pid }
})
await app.ready()
tell('ready')

process.on('message', () => { void app.close().then(() => { process.disconnect() }) })
process.on('disconnect', () => { process.exit() })
