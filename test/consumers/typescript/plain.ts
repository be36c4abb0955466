import Fastify from 'fastify'
import backgroundTasks, { UnrecoverableError, type JobContext, type PayloadOfTask } from 'fastify-background-tasks'
import { sqlite } from 'fastify-background-tasks/sqlite'
import { inline } from 'fastify-background-tasks/testing'

const app = Fastify()
await app.register(backgroundTasks, { backend: inline(), queues: { mail: { concurrency: 2 } } })

const greet = app.background.define('greet', { queue: 'mail', attempts: 2 }, async ({ name }: { name: string }, { log }: JobContext) => {
  if (name === '') throw new UnrecoverableError('nobody')
  log.info('greeting')
  return { greeting: `hello ${name}` }
})
declare module 'fastify-background-tasks' {
  interface BackgroundTaskMap { greet: PayloadOfTask<typeof greet> }
}
app.post<{ Params: { name: string } }>('/:name', async (request, reply) => {
  const job = reply.background('greet', { name: request.params.name })
  // @ts-expect-error a wrong payload
  const wrong = () => reply.background(greet, { nmae: 'x' })
  return { jobId: job.id, wrong: typeof wrong }
})
await app.ready()
const { jobId } = (await app.inject({ method: 'POST', url: '/ada' })).json<{ jobId: string }>()
await app.background.onIdle()
const job = await app.background.get(jobId)
console.log(`${job?.state}: ${JSON.stringify(job?.result)}, ${typeof sqlite}`)
await app.close()
