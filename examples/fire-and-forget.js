// Work after the response: the client does not wait for it, and the handler does not either.
import Fastify from 'fastify'
import backgroundTasks from 'fastify-background-tasks'

const app = Fastify()
await app.register(backgroundTasks)

const views = []
app.get('/articles/:id', async (request, reply) => {
  const { id } = request.params
  // Copy what the job needs: a function that closes over `request` keeps it alive.
  reply.background(async ({ job }) => {
    views.push(id)
    console.log(`after the response, attempt ${job.attempt}: ${views.length} view of ${id}`)
  })
  // An error before the reply cancels its jobs; here they shall run in any case.
  reply.background(() => { console.log('always: the request was seen') }, { when: 'always' })
  if (id === 'gone') throw Object.assign(new Error('no such article'), { statusCode: 404 })
  console.log('the handler answers')
  return { article: id }
})

const base = await app.listen({ port: 0 })
for (const id of ['fastify', 'gone']) {
  const response = await fetch(`${base}/articles/${id}`)
  await response.text()
  await app.background.onIdle()
  console.log(`client: ${response.status}`)
}
await app.close()

// Prints:
// the handler answers
// after the response, attempt 1: 1 view of fastify
// always: the request was seen
// client: 200
// always: the request was seen
// client: 404
