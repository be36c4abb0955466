// Started with `fastify start app.js`: the tasks are files of a folder.
import autoload from '@fastify/autoload'
import backgroundTasks from 'fastify-background-tasks'

export default async function service (app, _options) {
  await app.register(backgroundTasks, { drainTimeout: 300, abortGrace: 100 })
  app.register(autoload, { dir: new URL('tasks', import.meta.url).pathname })
  app.post('/greet/:name', async (request, reply) => reply.accepted('greet', { name: request.params.name }))
}
