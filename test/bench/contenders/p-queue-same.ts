import PQueue from 'p-queue'
import type { Done, Subject } from './index.ts'

/** As much of what our named jobs do as p-queue can: the payload copied by JSON's rules, the promise kept. */
export function create (done: Done): Subject {
  const queue = new PQueue({ concurrency: 10 })
  let kept: Array<Promise<unknown>> = []
  return {
    fill (n, mixed) {
      kept = []
      for (let i = 0; i < n; i++) {
        const payload = JSON.parse(JSON.stringify({ i })) as { i: number }
        kept.push(queue.add(async () => { done(payload.i) }, mixed ? { priority: i % 10 } : undefined))
      }
    },
    pause () { queue.pause() },
    resume () { queue.start() },
    async check () { await kept.at(-1) }
  }
}
