// Jobs at times: a pattern in a time zone, and an interval whose slow job is not started twice.
import Fastify from 'fastify'
import backgroundTasks from 'fastify-background-tasks'

const app = Fastify()
await app.register(backgroundTasks)

let runs = 0
let letGo
const free = new Promise((resolve) => { letGo = resolve })
const sweep = app.background.define('sweep', async () => {
  runs++
  await free
})
const report = app.background.define('report', async ({ month }) => month)

app.addHook('onReady', async () => {
  const { pattern, tz, overlap, next } = await app.background.schedule('monthly', { pattern: '0 9 L * *', tz: 'Europe/Berlin' }, report, { month: 'last' })
  console.log(pattern, tz, overlap, Date.parse(next) > Date.now())
  await app.background.schedule('sweep', { every: 100 }, sweep)
})
await app.ready()

const times = async () => (await app.background.schedules()).find(({ id }) => id === 'sweep').count
while (await times() < 3) await new Promise((resolve) => { setTimeout(resolve, 20) })
console.log(`${runs} job, the others were skipped while it ran`)
const { incidents } = (await app.inject('/health/jobs')).json()
console.log(incidents.skipped >= 2)

console.log(await app.background.unschedule('sweep'), (await app.background.schedules()).map(({ id }) => id))
letGo()
await app.close()

// Prints:
// 0 9 L * * Europe/Berlin skip true
// 1 job, the others were skipped while it ran
// true
// true [ 'monthly' ]
