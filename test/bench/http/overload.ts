/**
 * Ten times as many requests as there is work for: each leaves a job that holds its slot for a while, and the waiting
 * room is small. Beside it the same route with jobs that end at once, where nothing is refused, and one that throws the
 * same error at every request, without the plugin: what any refusal costs Fastify.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { getHeapStatistics } from 'node:v8'
import { createApp } from './app.ts'
import { loaded, type Load } from './keep-alive.ts'

export interface HttpOverloadSettings extends Load {
  readonly form: 'calm' | 'flood' | 'only 503'
}

const TIMES = 10
const ROOM = 1_000
/** Ms that a job holds its slot. */
const SLOT = 20

export async function prepare ({ form, ...load }: HttpOverloadSettings) {
  if (form === 'only 503') return watched(await loaded(await createApp('bare, 503'), load))
  const calm = await loaded(await createApp('named', { maxQueueSize: ROOM }), load)
  if (form === 'calm') return watched(calm)
  // Slots for a tenth of what the server answers.
  const { perSecond } = await calm()
  const concurrency = Math.max(1, Math.round(perSecond / TIMES * SLOT / 1_000))
  return watched(await loaded(await createApp('named', { maxQueueSize: ROOM, concurrency }, async () => { await sleep(SLOT) }), load))
}

/** Adds what was the most memory in use. */
function watched<Answers> (measure: () => Promise<Answers>) {
  return {
    async measure () {
      let peak = 0
      const look = setInterval(() => { peak = Math.max(peak, getHeapStatistics().used_heap_size) }, 20)
      const answers = await measure()
      clearInterval(look)
      return { ...answers, heap: peak / 2 ** 20, rss: process.memoryUsage.rss() / 2 ** 20 }
    }
  }
}
