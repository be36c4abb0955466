// A web process, as built, that is killed while it answers: its job is in the store, its response is not out.
import Fastify from 'fastify'
import { backgroundTasks } from 'fastify-background-tasks'
import { bullmq } from 'fastify-background-tasks/bullmq'

const [options, behind, maxHold] = process.argv.slice(2).map((text) => JSON.parse(text))
// Its clock is behind that of the others, or they would wait as long as a response is held.
const now = Date.now
Date.now = () => now() - behind

const app = Fastify()
await app.register(backgroundTasks, { backend: bullmq(options), role: 'producer', maxHold })
app.background.define('work', () => {})
app.post('/', async (_request, reply) => reply.accepted('work', { gate: 'killed' }))
app.addHook('onSend', async () => { process.kill(process.pid, 'SIGKILL') }) // after ours, which has stored the job
await app.listen({ port: 0, host: '127.0.0.1' })
process.send(app.server.address().port)
process.on('disconnect', () => { process.exit() })
