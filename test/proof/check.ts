/** One sequence from its first step to what is left after the close. */
import { isFinal } from '../../lib/job.ts'
import { Play } from './play.ts'
import { SETTINGS, type Op } from './plan.ts'

/** Throws when the library did anything the model does not allow, or left undone what it asks for. */
export async function check (ops: readonly Op[]): Promise<void> {
  const play = new Play()
  let closed = false
  try {
    await play.run(ops)
    closed = true
    await close(play)
  } finally {
    if (!closed) await abandon(play)
  }
}

async function close (play: Play): Promise<void> {
  const { app, clock, model } = play
  model.closingSince = clock.monotonic()
  const atOnce = model.isQuiet() && [...model.queues.values()].every(({ alive }) => alive.size === 0)
  model.stops(model.closingSince)
  let over = false
  const closing = app.close().then(() => { over = true })
  for (let turns = 0; turns < 4; turns++) await clock.settle()
  if (atOnce && !over) model.fault('close waits, and there is nothing to wait for')
  for (let waited = 0; !over && waited < SETTINGS.drainTimeout + SETTINGS.abortGrace; waited += 100) await clock.advance(100)
  if (!over) model.fault('close has missed its deadline')
  else await closing
  await play.rest('close')
  await afterClose(play)
  await play.rest('after the close')
}

/** Nothing is left but final states, and what comes late changes nothing. */
async function afterClose ({ app, clock, model, unfinished, visits, waiting }: Play): Promise<void> {
  for (const job of model.jobs) if (!isFinal(job.state)) model.fault('it has no end', job)
  for (const job of model.jobs) {
    if (unfinished.includes(job.id) !== (job.verdict.reason === 'shutdown')) model.fault('onUnfinished names what was left, and nothing else', job)
  }
  if (clock.pendingTimers !== 0) model.fault(`${clock.pendingTimers} timers left`)
  const begun = model.jobs.reduce((sum, job) => sum + job.steps, 0)
  for (const { end } of visits) end.resolve('ok')
  for (const { end } of waiting.slice()) end('done')
  await clock.advance(100_000)
  if (model.jobs.reduce((sum, job) => sum + job.steps, 0) !== begun) model.fault('a body began after the close')
  if (clock.pendingTimers !== 0) model.fault(`${clock.pendingTimers} timers came after the close`)
  await app.background.add(() => {}).then(() => { model.fault('a job was taken after the close') }, (error: { code?: string }) => {
    if (error.code !== 'FST_BG_CLOSING') model.fault(`after the close: ${error.code}`)
  })
}

/** After a failure: lets go of what the sequence holds. */
async function abandon ({ app, clock, visits, waiting }: Play): Promise<void> {
  for (const { end } of visits) end.resolve('ok')
  for (const { end } of waiting.slice()) end('done')
  let over = false
  app.close().then(() => { over = true }, () => { over = true })
  for (let round = 0; round < 100 && !over; round++) await clock.advance(1_000)
}
