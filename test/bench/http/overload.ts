/**
 * Ten times as many requests as there is work for: each leaves a job that holds its slot for a while, and the waiting
 * room is small. Beside it the same route with jobs that end at once, where nothing is refused.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { getHeapStatistics } from 'node:v8'
import { createApp } from './app.ts'
import { loaded, type Load } from './keep-alive.ts'

export interface HttpOverloadSettings extends Load {
  readonly flooded: boolean
}

const TIMES = 10
const ROOM = 1_000
/** Ms that a job holds its slot. */
const SLOT = 20

export async function prepare ({ flooded, ...load }: HttpOverloadSettings) {
  const calm = await loaded(await createApp('named', { maxQueueSize: ROOM }), load)
  if (!flooded) return { measure: () => watched(calm) }
  // Slots for a tenth of what the server answers.
  const { perSecond } = await calm()
  const concurrency = Math.max(1, Math.round(perSecond / TIMES * SLOT / 1_000))
  const flood = await loaded(await createApp('named', { maxQueueSize: ROOM, concurrency }, async () => { await sleep(SLOT) }), load)
  return { measure: () => watched(flood) }
}

/** Adds what was the most memory in use. */
async function watched<Answers> (measure: () => Promise<Answers>) {
  let peak = 0
  const look = setInterval(() => { peak = Math.max(peak, getHeapStatistics().used_heap_size) }, 20)
  const answers = await measure()
  clearInterval(look)
  return { ...answers, heap: peak / 2 ** 20, rss: process.memoryUsage.rss() / 2 ** 20 }
}
