/** bull-board itself. Loaded when the page is registered: its packages are optional. */
import { createBullBoard } from '@bull-board/api'
import { FastifyAdapter } from '@bull-board/fastify'
import type { FastifyPluginCallback } from 'fastify'
import type { Background } from '../background.ts'
import { QueueAdapter, type QueueSettings } from './queue.ts'

export interface BoardSettings extends QueueSettings {
  readonly title: string
  /** Path of the page. */
  readonly base: string
}

export interface Board {
  readonly routes: FastifyPluginCallback
  add (queue: string, background: Background): void
}

export function createBoard (settings: BoardSettings): Board {
  const server = new FastifyAdapter()
  server.setBasePath(settings.base)
  const { addQueue } = createBullBoard({
    queues: [],
    // Each of the two packages may bring its own copy of the types.
    serverAdapter: server as unknown as Parameters<typeof createBullBoard>[0]['serverAdapter'],
    options: { uiConfig: { boardTitle: settings.title, hideDocsLink: true, hideRedisDetails: true, showWorkers: false } }
  })
  return {
    routes: server.registerPlugin(),
    add (queue, background) { addQueue(new QueueAdapter(queue, background, settings)) }
  }
}
