/** Five applications with the plugin: one for each protocol, and one that is only injected into. */
import type { AddressInfo, Socket } from 'node:net'
import Fastify, { type FastifyInstance, type FastifyRegisterOptions } from 'fastify'
import { backgroundTasks, memory, type BackgroundTasksOptions } from '../../../lib/index.ts'
import { tls } from '../../support/tls.ts'
import type { SkippingClock } from './clock.ts'
import { addRoutes } from './handlers.ts'
import type { Ledger } from './ledger.ts'
import type { Protocol } from './plan.ts'

export interface Site {
  readonly protocol: Protocol
  readonly app: FastifyInstance
  readonly clock: SkippingClock
  readonly ledger: Ledger
  readonly port: number
  /** The connections that the server still has. */
  readonly sockets: Set<Socket>
}

export type Sites = Record<Protocol, Site>

export const MAX_HOLD = 300_000

const servers: Record<Protocol, object> = { h1: {}, h1s: { https: tls }, h2: { http2: true }, h2s: { http2: true, https: tls }, inject: {} }

/** What the plugin must not have to say. */
const alarming = /^(the backend failed|job failed|jobs refused|shutdown left|attempt failed)/

/** `alarm` is called with log lines that must not come. */
export async function openSites (clock: SkippingClock, ledger: Ledger, alarm: (line: string) => void): Promise<Sites> {
  const open = async (protocol: Protocol): Promise<Site> => {
    const stream = { write (line: string) { if (alarming.test((JSON.parse(line) as { msg: string }).msg)) alarm(line.trim()) } }
    const app = Fastify({ logger: { level: 'warn', stream }, ...servers[protocol] })
    const options: BackgroundTasksOptions = {
      backend: memory({ clock }),
      concurrency: 20,
      maxHold: MAX_HOLD,
      maxQueueSize: 1_000_000,
      retention: { completed: { count: 100_000, age: 1e9 }, failed: { count: 1_000, age: 1e9 } },
      drainTimeout: 1_000,
      abortGrace: 100
    }
    await app.register(backgroundTasks, options as FastifyRegisterOptions<BackgroundTasksOptions>)
    const sockets = new Set<Socket>()
    app.server.on('connection', (socket: Socket) => {
      sockets.add(socket)
      socket.on('close', () => { sockets.delete(socket) })
    })
    const site = { protocol, app, clock, ledger, sockets, get port () { return (app.server.address() as AddressInfo).port } }
    await addRoutes(site)
    if (protocol === 'inject') await app.ready()
    else await app.listen({ port: 0, host: '127.0.0.1' })
    return site
  }
  return { h1: await open('h1'), h1s: await open('h1s'), h2: await open('h2'), h2s: await open('h2s'), inject: await open('inject') }
}
