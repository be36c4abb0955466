/** Turns of the event loop that jobs take, while a backlog is drained. It is filled before: adding is its caller's turn, not ours. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { create, type Contender } from '../contenders/index.ts'
import { countdown, quantile, stopwatch, watchTurns } from '../measure.ts'

export interface TurnsSettings {
  readonly contender: Contender
  readonly backlog: number
  /** Jobs, in backlogs of 1 000. */
  readonly warmUp: number
}

/** Backlogs in a measurement: one has less than a hundred turns, too few for a 99th percentile. */
const DRAINS = 5

export async function prepare ({ contender, backlog, warmUp }: TurnsSettings) {
  const jobs = countdown()
  const subject = await create(contender, () => { jobs.done() })

  async function drain (n: number) {
    await subject.pause?.()
    const ended = jobs.expect(n)
    subject.fill(n, false)
    await nextTurn()
    const stop = watchTurns(jobs)
    const elapsed = stopwatch()
    await subject.resume?.()
    await ended
    const { cpu, wall } = elapsed()
    await nextTurn()
    return { turns: stop(), cpu, wall }
  }

  for (let did = 0; did < warmUp; did += 1_000) await drain(1_000)

  async function measure () {
    const all: number[] = []
    let cpu = 0
    let wall = 0
    for (let i = 0; i < DRAINS; i++) {
      const drained = await drain(backlog)
      all.push(...drained.turns)
      cpu += drained.cpu
      wall += drained.wall
    }
    const jobsDone = DRAINS * backlog
    return { turns: all.length / DRAINS, p99: quantile(all, 0.99), longest: quantile(all, 1), cpu: cpu / jobsDone, wall: wall / jobsDone }
  }

  return { measure }
}
