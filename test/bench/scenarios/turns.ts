/** Turns of the event loop while a backlog is drained. It is filled before: adding is its caller's turn, not ours. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { create, type Contender } from '../contenders/index.ts'
import { countdown, stopwatch, watchTurns } from '../measure.ts'

export interface TurnsSettings {
  readonly contender: Contender
  readonly backlog: number
  /** Jobs, in backlogs of 1 000. */
  readonly warmUp: number
}

export async function prepare ({ contender, backlog, warmUp }: TurnsSettings) {
  const jobs = countdown()
  const subject = await create(contender, () => { jobs.done() })

  async function drain (n: number) {
    await subject.pause?.()
    const ended = jobs.expect(n)
    subject.fill(n, false)
    await nextTurn()
    const stop = watchTurns()
    const elapsed = stopwatch()
    await subject.resume?.()
    await ended
    const { cpu, wall } = elapsed()
    await nextTurn()
    return { ...stop(), cpu: cpu / n, wall: wall / n }
  }

  for (let did = 0; did < warmUp; did += 1_000) await drain(1_000)
  return { measure: () => drain(backlog) }
}
