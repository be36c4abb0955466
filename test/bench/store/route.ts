/** The route of http/app.ts with its job in a SQLite file; and two ways to make it faster that were not taken. */
import Fastify, { type FastifyInstance } from 'fastify'
import type { Clock } from '../../../lib/index.ts'
import { systemClock } from '../../../lib/clock.ts'
import { BODY, PATH, createApp } from '../http/app.ts'
import { loaded, type Load } from '../http/keep-alive.ts'
import { openBackend } from './file.ts'
import { openThread } from './thread.ts'

/** `late`: a commit waits a ms, for others to share it. `thread`: raw SQLite in a thread, without the plugin; it keeps and ends a job for each request. */
export type RouteWay = 'ours' | 'late' | 'thread'

export interface DurableRouteSettings extends Load {
  readonly way: RouteWay
  readonly synchronous: 'full' | 'normal'
}

export async function prepare ({ way, synchronous, ...load }: DurableRouteSettings) {
  const app = way === 'thread' ? await openThreaded(synchronous) : await openOurs(synchronous, way === 'late' ? LATE : undefined)
  const spend = await loaded(app, load)
  const rest = async (): Promise<void> => { if (app.hasDecorator('background')) await app.background.onIdle() }
  await rest()
  return {
    async measure () {
      const spent = await spend()
      await rest() // the others are measured meanwhile
      return spent
    },
    close: () => app.close()
  }
}

const LATE: Clock = { ...systemClock, soon: (run) => { setTimeout(run, 1) } }

function openOurs (synchronous: 'full' | 'normal', clock: Clock | undefined): Promise<FastifyInstance> {
  return createApp('named', { backend: openBackend(synchronous, undefined, clock), maxQueueSize: 100_000_000, retention: { completed: { count: 10_000_000 } } })
}

async function openThreaded (synchronous: 'full' | 'normal'): Promise<FastifyInstance> {
  const thread = openThread(synchronous)
  const app = Fastify()
  app.post(PATH, async () => {
    await thread.ask(BODY)
    return { ok: true }
  })
  app.addHook('onClose', () => thread.close())
  return app
}
