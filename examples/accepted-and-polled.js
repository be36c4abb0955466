// A named task: the client gets a 202, asks the status for its progress, and finds the result there.
import Fastify from 'fastify'
import backgroundTasks from 'fastify-background-tasks'

const app = Fastify()
await app.register(backgroundTasks)

const render = app.background.define('render', {
  schema: { type: 'object', required: ['pages'], properties: { pages: { type: 'integer', minimum: 1 } } },
  attempts: 3,
  timeout: 10_000
}, async ({ pages }, { progress, signal }) => {
  for (let page = 1; page <= pages; page++) {
    signal.throwIfAborted()
    await new Promise((resolve) => { setTimeout(resolve, 20) })
    progress({ page, pages })
  }
  return { file: 'report.pdf', pages }
})
app.post('/reports', async (request, reply) => reply.accepted(render, request.body))

const base = await app.listen({ port: 0 })
const headers = { 'content-type': 'application/json' }
const response = await fetch(`${base}/reports`, { method: 'POST', headers, body: '{"pages":3}' })
const { name, statusUrl } = await response.json()
console.log(response.status, name, response.headers.get('location') === statusUrl)

let status
do {
  // A real client waits as long as `Retry-After` says.
  await new Promise((resolve) => { setTimeout(resolve, 5) })
  status = await (await fetch(base + statusUrl)).json()
} while (status.finishedAt === null)
console.log(status.state, status.progress, status.result)
await app.close()

// Prints:
// 202 render true
// completed { page: 3, pages: 3 } { file: 'report.pdf', pages: 3 }
