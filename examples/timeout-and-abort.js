// Each attempt has a signal of its own: it aborts on a timeout, a cancel and a shutdown, and its reason says which.
import { EventEmitter, once } from 'node:events'
import { setTimeout as wait } from 'node:timers/promises'
import Fastify from 'fastify'
import backgroundTasks from 'fastify-background-tasks'

const app = Fastify()
await app.register(backgroundTasks)
const begun = new EventEmitter()

const crawl = app.background.define('crawl', { attempts: 2, timeout: 250, backoff: 0 }, async (site, { job, signal }) => {
  begun.emit(site)
  try {
    // Hand the signal on: fetch, timers and database drivers take it.
    await wait(site === 'endless' || job.attempt === 1 ? 60_000 : 1, undefined, { signal })
    return `${site} read in attempt ${job.attempt}`
  } catch (error) {
    console.log(`${site}, attempt ${job.attempt}: ${signal.reason.reason}`)
    throw error
  }
})
await app.ready()

const slow = await app.background.add(crawl, 'slow')
console.log(await slow.finished())

const crawling = once(begun, 'endless')
const endless = await app.background.add(crawl, 'endless', { timeout: 0 })
await crawling
console.log(await app.background.cancel(endless.id, 'nobody needs it any more'))
await endless.finished().catch(({ code }) => { console.log(code) })

await app.background.add(crawl, 'endless', { attempts: 1 })
await app.background.onIdle()
const { jobs: [dead] } = await app.background.deadLetters.list()
console.log(dead?.state, dead?.failure)
await app.close()

// Prints:
// slow, attempt 1: timeout
// slow read in attempt 2
// cancelling
// endless, attempt 1: cancel
// FST_BG_JOB_CANCELLED
// endless, attempt 1: timeout
// failed timeout
