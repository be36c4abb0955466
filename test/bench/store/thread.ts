/** The other way to commit: a thread of its own for the file, to which each job and each end is a message. It keeps as little as raw.ts does. */
import { Worker } from 'node:worker_threads'

export function openThread (synchronous: 'full' | 'normal') {
  const thread = new Worker(new URL('thread-entry.js', import.meta.url), { workerData: { synchronous } })
  const waiting = new Map<number, () => void>()
  let asked = 0
  thread.on('message', (message: { started?: Array<{ ask: number, seq: number, payload: string }>, ended?: number[] }) => {
    // The body runs here, and its end is told.
    if (message.started !== undefined) thread.postMessage({ ended: message.started.map(({ ask, seq, payload }) => { JSON.parse(payload); return { ask, seq } }) })
    for (const ask of message.ended ?? []) {
      waiting.get(ask)?.()
      waiting.delete(ask)
    }
  })
  return {
    /** Resolves when the job's end is kept. */
    ask (payload: string): Promise<void> {
      const ask = ++asked
      thread.postMessage({ ask, payload })
      return new Promise((resolve) => { waiting.set(ask, resolve) })
    },
    async close () { await thread.terminate() }
  }
}
