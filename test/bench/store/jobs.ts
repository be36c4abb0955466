/** What a job costs that is inserted, claimed and completed, all of it kept, `inFlight` at a time. */
import { alarm, mainThread, stopwatch } from '../measure.ts'
import { create, type Store, type StoreSettings } from './index.ts'

export interface StoreJobsSettings extends StoreSettings {
  readonly store: Store
  readonly inFlight: number
  /** Jobs. */
  readonly warmUp: number
  /** Ms. */
  readonly enough: number
}

export async function prepare ({ store, inFlight, warmUp, enough, ...settings }: StoreJobsSettings) {
  const subject = await create(store, settings)
  for (let did = 0; did < warmUp; did += inFlight) await subject.batch(inFlight)

  async function measure () {
    const over = alarm(enough)
    const elapsed = stopwatch()
    const main = mainThread()
    let did = 0
    do {
      await subject.batch(inFlight)
      did += inFlight
    } while (!over())
    const { cpu, wall } = elapsed()
    return { perSecond: did / wall * 1e6, wall: wall / did, cpu: cpu / did, main: main() / did }
  }

  return { measure, close: () => subject.close() }
}
