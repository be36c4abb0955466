// A partner that is away: retried with growing pauses, then a dead letter, replayed when the partner is back. What can
// never succeed is not retried.
import Fastify from 'fastify'
import backgroundTasks, { UnrecoverableError } from 'fastify-background-tasks'

const app = Fastify()
await app.register(backgroundTasks)

let partner = 'away'
const sync = app.background.define('sync', {
  attempts: 3,
  backoff: { type: 'exponential', delay: 10, maxDelay: 60_000, jitter: 0.5 }
}, async ({ customer }, { job }) => {
  if (customer === '') throw new UnrecoverableError('no customer')
  if (partner === 'away') throw Object.assign(new Error('the partner is away'), { code: 'PARTNER_AWAY' })
  return `${customer} in step, attempt ${job.attempt}`
})
app.background.addHook('onTaskError', (job, error) => { console.log(`attempt ${job.attempt}: ${error.message}`) })
app.background.addHook('onTaskDead', (job, _error, failure) => { console.log(`${job.name} is dead: ${failure}`) })
await app.ready()

const job = await app.background.add(sync, { customer: 'ada' })
await app.background.add(sync, { customer: '' }, { priority: -1 })
await app.background.onIdle()

const { jobs } = await app.background.deadLetters.list({ task: 'sync' })
console.log(jobs.map(({ failure, attemptsMade }) => `${failure} after ${attemptsMade}`))
partner = 'back'
console.log(await app.background.deadLetters.retry(job.id))
console.log(await job.finished())
await app.close()

// Prints:
// attempt 1: the partner is away
// attempt 1: no customer
// sync is dead: unrecoverable
// attempt 2: the partner is away
// attempt 3: the partner is away
// sync is dead: exhausted
// [ 'exhausted after 3', 'unrecoverable after 1' ]
// { matched: 1, done: 1 }
// ada in step, attempt 1
