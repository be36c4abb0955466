/** Requests over loopback, from a client in its own process. Counted: CPU of the server. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { stopwatch } from '../measure.ts'
import { createApp, type Route } from './app.ts'
import type { Counts, Work } from './client.ts'

export interface Load {
  /** Requests. Counted, not timed: in the same time the compiler gets to know less of a longer path. */
  readonly warmUp: number
  /** Ms. */
  readonly enough: number
}

export interface KeepAliveSettings extends Load {
  readonly route: Route
}

const CONNECTIONS = 20

export async function prepare ({ route, ...load }: KeepAliveSettings) {
  const app = await createApp(route)
  return { measure: await loaded(app, load), close: () => app.close() }
}

/** CPU µs of this process for a request, while the client does what it can. */
export async function loaded (app: FastifyInstance, { warmUp, enough }: Load) {
  await app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = app.server.address() as AddressInfo
  const client = fork(new URL('client.js', import.meta.url), [String(port), String(CONNECTIONS)], { execArgv: [] })
  client.on('exit', (code) => { if (code !== 0) process.exit(1) }) // it has said why

  async function spend (work: Work) {
    const elapsed = stopwatch()
    client.send(work)
    const [{ answered, refused }] = await once(client, 'message') as [Counts]
    const { cpu, wall } = elapsed()
    return { cpu: cpu / answered, wall: wall / answered, perSecond: answered / wall * 1e6, refused: refused / answered }
  }

  await spend({ requests: warmUp, ms: 0 })
  return () => spend({ requests: 0, ms: enough })
}
