import type { FastifyInstance, FastifyServerOptions } from 'fastify'
import type { BackgroundTasksOptions, JobHandle, Task } from '../../../lib/index.ts'
import { createApp } from './app.ts'
import type { Done, Subject } from './index.ts'

/** Jobs looked up after each fill. */
const SAMPLE = 20

export interface More {
  /** What else the application is made of. */
  readonly define?: (app: FastifyInstance) => void
  readonly server?: FastifyServerOptions
}

/** The whole service: record, id, states, stamps, a timeout, retries armed, the handle kept, a status looked up. */
export async function create (done: Done, options?: BackgroundTasksOptions, { define, server }: More = {}): Promise<Subject> {
  let light!: Task<{ i: number }>
  const { background } = await createApp(options, (app) => {
    light = app.background.define('light', { attempts: 5 }, async ({ i }: { i: number }) => { done(i) })
    define?.(app)
  }, server)
  let kept: Array<Promise<JobHandle>> = []
  return {
    fill (n, mixed) {
      kept = []
      for (let i = 0; i < n; i++) kept.push(background.add(light, { i }, mixed ? { priority: i % 10 } : undefined))
    },
    pause: () => background.pause(),
    resume: () => background.resume(),
    async check () {
      // From the last, ten by ten: with priorities or without, these end last, and `retention` has forgotten the first.
      for (let n = 1; n <= SAMPLE; n++) {
        const { id } = await (kept.at(-10 * n) as Promise<JobHandle>)
        const job = await background.get(id)
        if (job?.state !== 'completed') throw new Error(`job ${id} is ${job?.state}`)
      }
    }
  }
}
