/** CPU and wall time of a light job, when `backlog` of them are added at once and then drained. */
import { AsyncLocalStorage } from 'node:async_hooks'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { create, type Contender } from '../contenders/index.ts'
import { alarm, collectGarbage, countdown, stopwatch } from '../measure.ts'

export interface CostSettings {
  readonly contender: Contender
  readonly backlog: number
  readonly mixed: boolean
  /** Jobs, in batches of 1 000. Counted, not timed: in the same time the compiler gets to know less of a longer path. */
  readonly warmUp: number
  /** Ms; whole backlogs until they have passed. */
  readonly enough: number
  /** Tracing and the like do this to a process: on Node 20 and 22 every promise costs more from then on. */
  readonly asyncContext: boolean
}

const WARM_UP_BATCH = 1_000
const HUGE = 1_000_000

export async function prepare ({ contender, backlog, mixed, warmUp, enough, asyncContext }: CostSettings) {
  if (asyncContext) new AsyncLocalStorage<object>().run({}, () => {})
  const jobs = countdown()
  const subject = await create(contender, () => { jobs.done() })

  async function batch (n: number): Promise<void> {
    const ended = jobs.expect(n)
    subject.fill(n, mixed)
    await ended
    await nextTurn() // the last bodies have returned; now their ends are stored
    await subject.check?.()
  }

  for (let did = 0; did < warmUp; did += WARM_UP_BATCH) await batch(WARM_UP_BATCH)

  async function measure () {
    const over = alarm(enough)
    const elapsed = stopwatch()
    let did = 0
    do {
      await batch(backlog)
      did += backlog
    } while (!over())
    const { cpu, wall } = elapsed()
    subject.fill(0, mixed) // lets go of what was kept of the last backlog
    if (backlog >= HUGE) collectGarbage() // or gigabytes would lie about in each process
    return { cpu: cpu / did, wall: wall / did, jobs: did }
  }

  return { measure }
}
