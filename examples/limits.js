// A queue with two slots, room for three waiting jobs and a rate limit: who comes when it is full gets a 503.
import Fastify from 'fastify'
import backgroundTasks from 'fastify-background-tasks'

const app = Fastify()
await app.register(backgroundTasks, {
  maxQueueSize: 3,
  queues: { thumbnails: { concurrency: 2 }, mail: { limiter: { max: 2, duration: 100 } } }
})

let alive = 0
let most = 0
let letGo
const free = new Promise((resolve) => { letGo = resolve })
const thumbnail = app.background.define('thumbnail', { queue: 'thumbnails' }, async () => {
  most = Math.max(most, ++alive)
  await free
  alive--
})
const mail = app.background.define('mail', { queue: 'mail' }, async () => performance.now())
app.post('/images', async (_request, reply) => reply.accepted(thumbnail))

const base = await app.listen({ port: 0 })
for (let n = 1; n <= 6; n++) {
  const response = await fetch(`${base}/images`, { method: 'POST' })
  const { code = 'accepted' } = await response.json()
  console.log(n, response.status, code, response.headers.get('retry-after'))
}
const health = await fetch(`${base}/health/jobs?strict=1`)
console.log(health.status, (await health.json()).status)
while (alive < 2) await new Promise(setImmediate) // jobs give way to requests
letGo()
await app.background.onIdle()
console.log(`never more than ${most} at once`)

const starts = await Promise.all([1, 2, 3].map(async () => (await app.background.add(mail)).finished()))
console.log(`the third mail waited: ${starts[2] - starts[0] >= 99}`)
await app.close()

// Prints:
// 1 202 accepted 1
// 2 202 accepted 1
// 3 202 accepted 1
// 4 202 accepted 1
// 5 202 accepted 1
// 6 503 FST_BG_QUEUE_FULL 1
// 503 overloaded
// never more than 2 at once
// the third mail waited: true
