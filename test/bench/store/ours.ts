/** The plugin on a SQLite file, through `app.background`: a task with retries, a timeout, states, and all ends remembered. */
import type { Task } from '../../../lib/index.ts'
import { createApp } from '../contenders/app.ts'
import { countdown } from '../measure.ts'
import { openBackend } from './file.ts'
import { payload, type StoreSettings, type StoreSubject } from './index.ts'

/** All that a run makes: nothing is deleted while it is measured, here or elsewhere. */
const KEEP = { count: 10_000_000, age: 86_400_000 }

export async function create ({ synchronous }: StoreSettings): Promise<StoreSubject> {
  const ends = countdown()
  const backend = openBackend(synchronous)
  const settle = backend.settle.bind(backend)
  backend.settle = async (attempt, outcome) => {
    await settle(attempt, outcome)
    ends.done()
  }
  let light!: Task<{ i: number }>
  const app = await createApp({ backend, concurrency: 100, retention: { completed: KEEP } }, (instance) => {
    light = instance.background.define('light', { attempts: 5 }, async () => {})
  })
  const { background } = app
  return {
    async batch (n) {
      const ended = ends.expect(n)
      if (n === 1) await background.add(light, payload(0))
      else await background.addBulk(Array.from({ length: n }, (_, i) => ({ name: 'light', payload: payload(i) })))
      await ended
    },
    close: () => app.close()
  }
}
