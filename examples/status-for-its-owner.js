// A status that its owner alone may read. `authorize` sees the request and the job with its payload.
import Fastify from 'fastify'
import backgroundTasks from 'fastify-background-tasks'

const app = Fastify()
app.decorateRequest('user', '')
// The application's own login comes first; here a header stands for it.
app.addHook('onRequest', async (request) => { request.user = String(request.headers.authorization) })

await app.register(backgroundTasks, {
  authorize: (request, _action, job) => job?.payload?.owner === request.user
})
const exported = app.background.define('export', async ({ owner }) => {
  if (owner === 'eve') throw new Error('the disk is full')
  return { rows: 42 }
})
app.post('/exports', async (request, reply) => reply.accepted(exported, { owner: request.user }, { attempts: 1 }))

const base = await app.listen({ port: 0 })
for (const user of ['ada', 'eve']) {
  const { statusUrl } = await (await fetch(`${base}/exports`, { method: 'POST', headers: { authorization: user } })).json()
  await app.background.onIdle()
  for (const reader of [user, 'mallory']) {
    const response = await fetch(base + statusUrl, { headers: { authorization: reader } })
    const { state, result, error, code } = await response.json()
    // As if there were no such job: a 403 would tell that there is one.
    console.log(`${reader} reads ${user}'s:`, response.status, code ?? state, result ?? error ?? '')
  }
}
await app.close()

// Prints:
// ada reads ada's: 200 completed { rows: 42 }
// mallory reads ada's: 404 FST_BG_JOB_NOT_FOUND Not Found
// eve reads eve's: 200 failed { name: 'Error', code: null, message: 'the disk is full' }
// mallory reads eve's: 404 FST_BG_JOB_NOT_FOUND Not Found
