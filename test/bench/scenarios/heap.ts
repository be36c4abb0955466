/** Heap of a job that waits, and of one that has ended and is remembered; without its payload, which is measured alone. */
import type { JobHandle, Json, Task } from '../../../lib/index.ts'
import { createApp } from '../contenders/app.ts'
import { heapUsed } from '../measure.ts'

/** Each payload is made anew, so that nobody shares it. */
const payloads = {
  none: () => null,
  object: (i: number) => ({ i, item: 'tea', gift: false }),
  // Flat, as what was read from a request: a concatenated text would still drag its parts along.
  text: (i: number) => Buffer.alloc(1_000, `${i} `).toString('latin1')
} satisfies Record<string, (i: number) => Json>

export interface HeapSettings {
  readonly jobs: number
  readonly payload: keyof typeof payloads
  /** Whoever added the jobs keeps their handles. */
  readonly keep: boolean
}

const WARM_UP = 1_000

export async function prepare ({ jobs, payload, keep }: HeapSettings) {
  const make = payloads[payload]
  const alone = await heapOfPayloads(jobs, make)
  return {
    async measure () {
      const { waiting, remembered } = await heapOfJobs(jobs, make, keep)
      return { payload: alone, waiting: waiting - alone, remembered: remembered - alone }
    }
  }
}

async function heapOfJobs (jobs: number, make: (i: number) => Json, keep: boolean) {
  let light!: Task<Json>
  const app = await createApp({ retention: { completed: { count: WARM_UP + jobs } } }, (instance) => {
    light = instance.background.define('light', { attempts: 5 }, async () => {})
  })
  const { background } = app
  const handles: JobHandle[] = []

  async function fill (n: number): Promise<void> {
    await background.pause()
    for (let i = 0; i < n; i++) {
      const handle = await background.add(light, make(i))
      if (keep) handles.push(handle)
    }
  }
  async function drain (): Promise<void> {
    await background.resume()
    await background.onIdle()
  }

  await fill(WARM_UP)
  await drain()
  const before = await heapUsed()
  await fill(jobs)
  const filled = await heapUsed()
  await drain()
  const drained = await heapUsed()
  const completed = (await background.counts()).default?.completed
  if (completed !== WARM_UP + jobs) throw new Error(`${completed} jobs are remembered`)
  await app.close()
  // Looked at here, they were in use all the time.
  if (handles.length !== (keep ? WARM_UP + jobs : 0)) throw new Error(`${handles.length} handles are kept`)
  return { waiting: (filled - before) / jobs, remembered: (drained - before) / jobs }
}

async function heapOfPayloads (jobs: number, make: (i: number) => Json): Promise<number> {
  const copies = Array.from<unknown>({ length: jobs }).fill(null) // its own bytes are not theirs
  const before = await heapUsed()
  for (let i = 0; i < jobs; i++) copies[i] = JSON.parse(JSON.stringify(make(i)))
  const bytes = await heapUsed() - before
  return Math.max(0, bytes / copies.length)
}
