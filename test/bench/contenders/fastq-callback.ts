import fastq from 'fastq'
import type { Done, Subject } from './index.ts'

export function create (done: Done): Subject {
  const work = async ({ i }: { i: number }): Promise<void> => { done(i) }
  const queue = fastq((payload: { i: number }, callback) => { work(payload).then(() => callback(null), callback) }, 10)
  return {
    fill (n) {
      for (let i = 0; i < n; i++) queue.push({ i })
    },
    pause () { queue.pause() },
    resume () { queue.resume() }
  }
}
