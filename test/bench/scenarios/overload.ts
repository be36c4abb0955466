/** The price of a refusal beside the price of a job: a room for `room` jobs, and ten times as many that want in. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { errors, type JobHandle, type Task } from '../../../lib/index.ts'
import { createApp } from '../contenders/app.ts'
import { alarm, countdown, stopwatch } from '../measure.ts'

export interface OverloadSettings {
  readonly room: number
  /** Jobs, before there are refusals: beside nine of them for each job the jobs would stay cold. */
  readonly warmUp: number
  /** Ms. */
  readonly enough: number
}

const TIMES = 10

export async function prepare ({ room, warmUp, enough }: OverloadSettings) {
  const jobs = countdown()
  let light!: Task<{ i: number }>
  const { background } = await createApp({ maxQueueSize: room }, (app) => {
    light = app.background.define('light', { attempts: 5 }, async () => { jobs.done() })
  })

  /** Fills the room, knocks on the closed door, empties the room. Answers µs of CPU for a job and for a refusal. */
  async function flood (times: number) {
    const ended = jobs.expect(room)
    const handles: Array<Promise<JobHandle>> = []
    const adding = stopwatch()
    for (let i = 0; i < room; i++) handles.push(background.add(light, { i }))
    const added = adding().cpu
    const refusals = (times - 1) * room
    const refusing = stopwatch()
    // Awaited one by one, as by callers that want to know.
    for (let i = 0; i < refusals; i++) await refused(i)
    const refusal = refusing().cpu
    const draining = stopwatch()
    await background.resume()
    await ended
    await nextTurn()
    const drained = draining().cpu
    await background.pause()
    await Promise.all(handles)
    return { job: (added + drained) / room, refusal: refusals === 0 ? 0 : refusal / refusals }
  }

  async function refused (i: number): Promise<void> {
    try {
      await background.add(light, { i })
    } catch (error) {
      if (error instanceof errors.QueueFull) return
      throw error
    }
    throw new Error('a full queue took a job')
  }

  async function spend (times: number) {
    const over = alarm(enough)
    const sum = { job: 0, refusal: 0 }
    let rooms = 0
    do {
      const { job, refusal } = await flood(times)
      sum.job += job
      sum.refusal += refusal
      rooms++
    } while (!over())
    return { job: sum.job / rooms, refusal: sum.refusal / rooms }
  }

  await background.pause()
  for (let did = 0; did < warmUp; did += room) await flood(1)
  for (let did = 0; did < warmUp; did += TIMES * room) await flood(TIMES)

  async function measure () {
    const calm = await spend(1)
    const busy = await spend(TIMES)
    return { job: calm.job, busyJob: busy.job, refusal: busy.refusal }
  }

  return { measure }
}
