/** A worker of its own process: tells what its jobs do, and ends when it is told, or when nobody is there to tell. */
import { appOn, type Told, type Where } from './cluster.ts'

const where = JSON.parse(process.argv[2] as string) as Where
const { app } = await appOn(where, { role: 'worker', concurrency: 3 })

function tell (what: Told['what'], id = '', attempt = 0): void {
  process.send?.({ what, id, attempt })
}

// Says who did it; takes as long as it is asked to, or until its signal aborts.
app.background.define<{ ms: number }>('work', async ({ ms }, { job, signal }) => {
  tell('started', job.id, job.attempt)
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener('abort', () => {
      clearTimeout(timer)
      tell('aborted', job.id, job.attempt)
      resolve()
    })
  })
  tell('ended', job.id, job.attempt)
  return { by: process.pid }
})
await app.ready()
tell('ready')

process.on('message', () => { void app.close().then(() => { process.disconnect() }) })
process.on('disconnect', () => { process.exit() })
