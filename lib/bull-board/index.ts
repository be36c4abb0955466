/** A page for operators: our queues in bull-board, whatever they stand on. */
import { AsyncLocalStorage } from 'node:async_hooks'
import type { FastifyInstance, FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import * as check from '../check.ts'
import { errors } from '../errors.ts'
import { Access, fromHere } from '../http/access.ts'
import type { Action, Authorize } from '../options.ts'
import { importPeer } from '../peer.ts'
import { createRedactor, redactPaths } from '../redact.ts'
import type { Visit } from './queue.ts'

/** Options of the page. */
export interface BullBoardOptions {
  /** Asked at each request, and for each job that is shown or changed, as by the plugin's own routes. Required. */
  authorize: Authorize
  /** Nothing can be changed. @default false */
  readOnly?: boolean | undefined
  /** Payloads are shown only where this is given: paths to hide, as in the plugin's `redact`. @default none: no payloads */
  redact?: readonly string[] | undefined
  /** @default 'Background jobs' */
  title?: string | undefined
  /** Where the page is, as for every plugin. @default none: at the root */
  prefix?: string
}

const CHECKS: check.Checks = {
  authorize: check.func,
  readOnly: check.boolean,
  redact: redactPaths,
  title: check.name,
  prefix: check.anything,
  logLevel: check.anything,
  logSerializers: check.anything
}

/** By the last part of the route that changes something. What is not here is refused. */
const ACTIONS: Readonly<Record<string, Action>> = {
  pause: 'pause',
  resume: 'resume',
  retry: 'retry',
  promote: 'retry',
  clean: 'remove',
  empty: 'cancel'
}

/**
 * To be registered below the plugin itself, with a `prefix`. Needs the packages `@bull-board/api` and
 * `@bull-board/fastify`.
 * @throws FST_BG_AUTHORIZE_REQUIRED, FST_BG_PEER_MISSING, FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION
 */
export const bullBoard: FastifyPluginAsync<BullBoardOptions> = async function bullBoard (app, options) {
  const { authorize, readOnly = false, redact, title = 'Background jobs' } = check.options<BullBoardOptions>('bullBoard options', CHECKS, options)
  if (authorize === undefined) throw new errors.AuthorizeRequired('bullBoard')
  if (!app.hasDecorator('background')) throw new errors.NotReady('bullBoard: fastify-background-tasks is not registered on this instance or a parent of it; a page')
  const { createBoard } = await importPeer('bullBoard', '@bull-board/api @bull-board/fastify', () => import('./board.ts'))
  const visits = new AsyncLocalStorage<Visit>()
  guard(app, new Access(authorize), readOnly, visits)
  const settings = { title, readOnly, base: app.prefix, redact: redact && createRedactor(redact), visit: () => visits.getStore() as Visit }
  const board = createBoard(settings)
  await app.register(board.routes)
  // Queues of tasks are known when all are defined.
  app.addHook('onReady', async () => { for (const queue of Object.keys(await app.background.counts())) board.add(queue, app.background) })
}

export default bullBoard

/** Everything behind it knows who asks, and for what. */
function guard (app: FastifyInstance, access: Access, readOnly: boolean, visits: AsyncLocalStorage<Visit>): void {
  app.addHook('onRequest', async (request, reply) => {
    if (!isRead(request)) await fromHere(request, reply)
  })
  app.addHook('preHandler', (request, reply, done) => {
    const action = actionOf(request)
    const onOne = (request.params as { jobId?: string } | null)?.jobId !== undefined
    const admit = async (): Promise<boolean> => {
      if (action === undefined || (readOnly && !isRead(request))) {
        refuse(reply, 405, action === undefined ? 'this page cannot do that with background jobs' : 'this page is read-only')
        return false
      }
      // What is on one job is asked when that job is read.
      if (onOne || await access.may(request, action)) return true
      refuse(reply, 403, `not allowed: ${action}`)
      return false
    }
    admit().then((admitted) => {
      if (admitted) visits.run({ action: action as Action, may: (job) => access.may(request, action as Action, job) }, done)
    }, done)
  })
}

function isRead ({ method }: FastifyRequest): boolean {
  return method === 'GET' || method === 'HEAD'
}

function actionOf (request: FastifyRequest): Action | undefined {
  const { url = '' } = request.routeOptions
  if (isRead(request)) return (request.params as { jobId?: string } | null)?.jobId === undefined ? 'list' : 'read'
  const parts = url.split('/')
  const last = parts.at(-1)?.startsWith(':') === true ? parts.at(-2) : parts.at(-1)
  return last !== undefined && Object.hasOwn(ACTIONS, last) && !url.includes('job-schedulers') ? ACTIONS[last] : undefined
}

/** In the shape that the page understands. */
function refuse (reply: FastifyReply, status: number, message: string): void {
  reply.code(status).send({ error: { key: 'ERRORS.FORBIDDEN' }, message })
}
