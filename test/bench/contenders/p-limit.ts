import pLimit from 'p-limit'
import type { Done, Subject } from './index.ts'

export function create (done: Done): Subject {
  const limit = pLimit(10)
  let kept: Array<Promise<void>> = []
  return {
    fill (n) {
      kept = []
      for (let i = 0; i < n; i++) kept.push(limit(async () => { done(i) }))
    },
    async check () { await kept.at(-1) }
  }
}
