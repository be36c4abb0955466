/** Requests by `inject`: Fastify and the plugin alone, without the network. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { alarm, stopwatch } from '../measure.ts'
import { BODY, PATH, createApp, type Route } from './app.ts'

export interface InjectSettings {
  readonly route: Route
  /** Requests. */
  readonly warmUp: number
  /** Ms. */
  readonly enough: number
}

/** Requests between two turns of the loop, as many as a busy server reads in one. */
const A_TURN = 10

export async function prepare ({ route, warmUp, enough }: InjectSettings) {
  const app = await createApp(route)
  const request = { method: 'POST', url: PATH, headers: { 'content-type': 'application/json' }, payload: BODY } as const

  async function turn (): Promise<void> {
    for (let i = 0; i < A_TURN; i++) {
      const { statusCode } = await app.inject(request)
      if (statusCode !== 200) throw new Error(`status ${statusCode}`)
    }
    // Injected requests never leave their turn of the loop, and what waits for the next one would pile up.
    await nextTurn()
  }
  const settled = async (): Promise<void> => { if (app.hasDecorator('background')) await app.background.onIdle() }

  for (let did = 0; did < warmUp; did += A_TURN) await turn()
  await settled()

  async function measure () {
    const over = alarm(enough)
    const elapsed = stopwatch()
    let did = 0
    do {
      await turn()
      did += A_TURN
    } while (!over())
    await settled() // a request's work includes the job it leaves behind
    const { cpu, wall } = elapsed()
    return { cpu: cpu / did, wall: wall / did, requests: did }
  }

  return { measure, close: () => app.close() }
}
