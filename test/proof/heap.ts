/** The heap after a collection, and whether it grows. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

// Not every runner passes --expose-gc on.
setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** Bytes in use. Twice with a turn between: what the first collection finalizes is gone after the second. */
export async function heapUsed (): Promise<number> {
  collect()
  await new Promise((resolve) => { setImmediate(resolve) })
  collect()
  return process.memoryUsage().heapUsed
}

export interface Sample {
  readonly jobs: number
  readonly bytes: number
}

/** Bytes a job, by a line of least squares. */
export function slope (samples: readonly Sample[]): number {
  const mean = (of: (sample: Sample) => number): number => samples.reduce((sum, sample) => sum + of(sample), 0) / samples.length
  const jobs = mean((sample) => sample.jobs)
  const bytes = mean((sample) => sample.bytes)
  return mean((sample) => (sample.jobs - jobs) * (sample.bytes - bytes)) / mean((sample) => (sample.jobs - jobs) ** 2)
}
