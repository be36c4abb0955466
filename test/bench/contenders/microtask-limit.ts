import type { Done, Subject } from './index.ts'

const CONCURRENCY = 10

/** The floor: ten at once, the rest in a list, and nothing else. */
export function create (done: Done): Subject {
  const waiting: Array<(() => Promise<void>) | undefined> = []
  let first = 0
  let running = 0

  function next (): void {
    while (running < CONCURRENCY && first < waiting.length) {
      const job = waiting[first] as () => Promise<void>
      waiting[first++] = undefined
      running++
      job().then(ended, ended)
    }
    if (first < waiting.length) return
    waiting.length = 0
    first = 0
  }

  function ended (): void {
    running--
    next()
  }

  return {
    fill (n) {
      for (let i = 0; i < n; i++) {
        waiting.push(async () => { done(i) })
        next()
      }
    }
  }
}
