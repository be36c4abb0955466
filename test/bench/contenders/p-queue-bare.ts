import PQueue from 'p-queue'
import type { Done, Subject } from './index.ts'

/** The way p-queue is mostly used: a closure, the promise ignored. */
export function create (done: Done): Subject {
  const queue = new PQueue({ concurrency: 10 })
  return {
    fill (n, mixed) {
      for (let i = 0; i < n; i++) void queue.add(async () => { done(i) }, mixed ? { priority: i % 10 } : undefined)
    },
    pause () { queue.pause() },
    resume () { queue.start() }
  }
}
