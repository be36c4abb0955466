/** The soak: waves of mixed jobs, overload in between, and the heap looked at along the way. */
import { heapUsed, slope, type Sample } from './heap.ts'
import { LIMITS, Load } from './load.ts'

export interface SoakResult {
  readonly load: Load
  readonly samples: readonly Sample[]
  /** Bytes a job, after the warm-up. */
  readonly slope: number
}

const WAVE = 1_500
/** Every so many waves, ten times the waiting room is offered: a roomful in each of ten turns of the loop. */
const OVERLOAD_EACH = 40
const SAMPLES = 60
/** Part of the jobs before the heap counts: code is compiled, and what is kept is full. */
const WARM_UP = 0.3

export async function soak (jobs: number, say: (line: string) => void): Promise<SoakResult> {
  const load = new Load()
  const samples: Sample[] = []
  await load.open()
  for (let wave = 0; load.jobs < jobs; wave++) {
    if (wave % OVERLOAD_EACH === 1) await overload(load)
    else await load.offer(WAVE)
    for (let n = 0; n < 5; n++) await load.request()
    await load.idle()
    if (load.jobs >= jobs * samples.length / SAMPLES) samples.push({ jobs: load.jobs, bytes: await heapUsed() })
    if (samples.length % 10 === 0 && samples.at(-1)?.jobs === load.jobs) say(`${load.jobs} jobs, ${load.refused} refused, heap ${samples.at(-1)?.bytes}`)
  }
  await load.settleAccounts()
  await load.app.close()
  for (let turn = 0; turn < 20 && load.collected < load.requests; turn++) await heapUsed()
  if (load.collected !== load.requests) load.faults.push(`${load.requests - load.collected} of ${load.requests} requests are still held by their jobs`)
  return { load, samples, slope: slope(samples.filter((sample) => sample.jobs >= jobs * WARM_UP)) }
}

async function overload (load: Load): Promise<void> {
  const { offered, refused } = load
  for (let turn = 0; turn < 10; turn++) {
    await load.offer(LIMITS.maxQueueSize)
    await new Promise((resolve) => { setImmediate(resolve) })
  }
  if (load.refused === refused) load.faults.push(`${load.offered - offered} jobs at once, and none was refused`)
}
