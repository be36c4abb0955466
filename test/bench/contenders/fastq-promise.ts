import fastq from 'fastq'
import type { Done, Subject } from './index.ts'

export function create (done: Done): Subject {
  const queue = fastq.promise(async ({ i }: { i: number }) => { done(i) }, 10)
  let kept: Array<Promise<void>> = []
  return {
    fill (n) {
      kept = []
      for (let i = 0; i < n; i++) kept.push(queue.push({ i }))
    },
    async check () { await kept.at(-1) }
  }
}
