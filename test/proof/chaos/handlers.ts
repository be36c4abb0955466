/** Ways to answer. Each has a route of its own in a scope of its own, and accepts the jobs of the request's plan. */
import { Readable } from 'node:stream'
import { ReadableStream } from 'node:stream/web'
import compress from '@fastify/compress'
import type { FastifyInstance, FastifyReply } from 'fastify'
import type { Visit } from './ledger.ts'
import type { Site } from './sites.ts'

export interface Kind {
  readonly add: (route: Route) => unknown
  readonly method?: 'GET' | 'POST' | 'HEAD'
  readonly path?: string
  /** How it ends, also when its client has left. */
  readonly status?: number
  readonly handled?: boolean
  /** It ends like that only if its client stays. */
  readonly onlyClean?: boolean
  /** The status is written by hand; HTTP/2 does not take one for a stream that is gone. */
  readonly byHand?: boolean
  /** The response ends in mid-stream whatever the client does. */
  readonly breaks?: boolean
  /** The client's leaving brings the end. */
  readonly waits?: boolean
  /** Not even that, only maxHold does; or so if the client leaves. */
  readonly never?: boolean
  readonly mayHang?: boolean
}

interface Route {
  readonly scope: FastifyInstance
  readonly path: string
  readonly site: Site
  /** Stages the request's jobs, all or the chosen ones. */
  readonly accept: (reply: FastifyReply, chosen?: (index: number) => boolean) => Visit
}

type Answer = (reply: FastifyReply, visit: Visit, scope: FastifyInstance) => unknown

const broken = new Error('broken on purpose')
const bulk = Buffer.alloc(4 * 1024 * 1024, 'chaos ')
const rows = Array.from({ length: 300 }, (_, id) => ({ id, name: `row ${id}` }))
const failed = { status: 500, handled: false }

export const nextTurn = (): Promise<void> => new Promise((resolve) => { setImmediate(resolve) })
const never = (): Promise<void> => new Promise(() => {})

/** Accepts, takes its time and answers. */
const answering = (answer: Answer) => ({ scope, path, accept }: Route) => {
  scope.get(path, async (_, reply) => {
    const visit = accept(reply)
    await visit.takeTime()
    visit.answer()
    return answer(reply, visit, scope)
  })
}

/** The same without waiting, and without a promise. */
const sync = (answer: Answer, options = {}) => ({ scope, path, accept }: Route) => {
  scope.get(path, options, (_, reply) => {
    const visit = accept(reply)
    visit.answer()
    answer(reply, visit, scope)
  })
}

/** Answers when its client has left. */
const outliving = (answer: Answer) => ({ scope, path, accept }: Route) => {
  scope.get(path, async (_, reply) => {
    const visit = accept(reply)
    await visit.end
    await visit.takeTime()
    visit.answer()
    return answer(reply, visit, scope)
  })
}

/** `answering`, with something done to the scope before. */
const within = (setUp: (scope: FastifyInstance) => unknown, answer: Answer) => async (route: Route) => {
  await setUp(route.scope)
  answering(answer)(route)
}

async function * words (count: number, error?: Error): AsyncGenerator<string> {
  for (let n = 0; n < count; n++) {
    yield `chunk ${n} `
    await nextTurn()
  }
  if (error !== undefined) throw error
}

const chunks = (count: number, error?: Error): Readable => Readable.from(words(count, error))

function webChunks (count: number, error?: Error): ReadableStream {
  let n = 0
  return new ReadableStream({
    async pull (controller) {
      await nextTurn()
      if (n++ < count) controller.enqueue(Buffer.from('chunk '))
      else if (error === undefined) controller.close()
      else controller.error(error)
    }
  })
}

const gzip = async (scope: FastifyInstance) => { await scope.register(compress, { threshold: 0, encodings: ['gzip'] }) }

export const kinds: Readonly<Record<string, Kind>> = {
  'plain sync': { add: sync((reply) => reply.send('sent')) },
  async: { add: answering(() => ({ ok: true })) },
  'sends later': { add: answering((reply) => { setImmediate(() => reply.send('sent')); return reply }) },
  'stages after sending': { add: ({ scope, path, accept }) => scope.get(path, (_, reply) => { reply.send('sent'); accept(reply).answer() }) },
  'reply.accepted': { status: 202, add: addAccepted },
  'hooks stage': { add: addHooks },
  'posted body': { method: 'POST', onlyClean: true, add: addPosted },
  HEAD: { method: 'HEAD', add: answering(() => 'unseen') },
  204: { status: 204, add: answering((reply) => reply.code(204).send()) },
  304: { status: 304, add: answering((reply) => reply.code(304).send()) },
  redirect: { status: 302, add: answering((reply) => reply.redirect('/elsewhere')) },
  '404 hook': { status: 404, path: '/missing', add: addNotFound },
  'big body': { add: answering((reply, { request }) => reply.send(bulk.subarray(0, request.size))) },
  'answers twice': { add: sync((reply) => { reply.send('first'); reply.send('second') }) },
  'throws after sending': { add: sync((reply) => { reply.send('sent'); throw broken }) },
  'async onSend': { add: within((scope) => scope.addHook('onSend', async () => { await nextTurn(); await nextTurn() }), () => 'sent') },
  compress: { add: within(gzip, () => rows) },
  'compress, stream': { add: within(gzip, (reply) => reply.type('text/plain').send(chunks(5))) },
  'inner inject': { add: addInner },
  // Errors.
  throws: { ...failed, add: answering(() => { throw broken }) },
  'throws sync': { ...failed, add: sync(() => { throw broken }) },
  'sends an error': { ...failed, add: answering((reply) => reply.send(broken)) },
  'error turned 200': { ...failed, status: 200, add: within((scope) => scope.setErrorHandler((_e, _r, reply) => reply.code(200).send('never mind')), () => { throw broken }) },
  'error handler throws': { ...failed, add: within((scope) => scope.setErrorHandler(() => { throw broken }), () => { throw broken }) },
  'onSend throws': { ...failed, add: within((scope) => scope.addHook('onSend', async () => { throw broken }), () => 'unsent') },
  'handler timeout': { status: 503, handled: false, onlyClean: true, mayHang: true, add: sync(() => {}, { handlerTimeout: 3 }) },
  // Streams.
  stream: { add: answering(() => chunks(5)) },
  'web stream': { add: answering((reply) => reply.send(webChunks(5))) },
  Response: { status: 201, add: answering(() => new Response('made', { status: 201 })) },
  'stream fails before its first byte': { ...failed, onlyClean: true, add: answering(() => chunks(0, broken)) },
  'stream fails in mid-stream': { breaks: true, add: answering(() => chunks(3, broken)) },
  'web stream fails in mid-stream': { breaks: true, add: answering((reply) => reply.send(webChunks(3, broken))) },
  'handler timeout in mid-stream': { breaks: true, add: sync((reply) => { const stream = new Readable({ read () {} }); stream.push('begun'); reply.send(stream) }, { handlerTimeout: 3 }) },
  // By hand.
  'hijack, ended': { status: 202, byHand: true, add: answering((reply) => { reply.hijack(); reply.raw.writeHead(202).end('by hand') }) },
  'hijack, destroyed': { breaks: true, add: answering((reply) => { reply.hijack(); reply.raw.destroy() }) },
  'hijack, never ended': { waits: true, add: sync((reply) => { reply.hijack() }) },
  'hijack, HEAD': { method: 'HEAD', waits: true, add: sync((reply) => { reply.hijack() }) },
  'hijack, event stream': { waits: true, add: sync((reply) => { reply.hijack(); reply.raw.writeHead(200); reply.raw.write('data: 1\n\n') }) },
  // With a client that leaves first.
  'outlives its client': { waits: true, status: 201, add: outliving((reply) => reply.code(201).send('unheard')) },
  'outlives its client, streams': { waits: true, add: outliving(() => chunks(2)) },
  'outlives its client, throws': { ...failed, waits: true, add: outliving(() => { throw broken }) },
  'never answers': { never: true, add: ({ scope, path, accept }) => scope.get(path, (_, reply) => { accept(reply); return never() }) }
}

export const kindOf = ({ kind }: { kind: string }): Kind => kinds[kind] as Kind

export const pathOf = (kind: string): string => `/${kind.toLowerCase().replace(/[^a-z0-9]+/g, '-')}`

/** All routes, into an application that has the plugin. */
export async function addRoutes (site: Site): Promise<void> {
  site.app.background.define('chaos', ({ number }: { number: number }) => site.ledger.ran(number))
  for (const [kind, { add }] of Object.entries(kinds)) {
    await site.app.register(async (scope) => {
      await add({ scope, path: '/', site, accept: (reply, chosen) => site.ledger.arrive(site, reply, chosen) })
    }, { prefix: pathOf(kind) })
  }
}

/** `reply.accepted` tells the id in its body. */
function addAccepted ({ scope, path, site }: Route): void {
  scope.addHook('preSerialization', async (_, reply, body: { jobId: string }) => { site.ledger.learnId(reply, body.jobId) })
  scope.get(path, (_, reply) => { site.ledger.arriveAccepted(site, reply) })
}

/** A job in each of four hooks. */
function addHooks ({ scope, path, accept }: Route): void {
  const part = (n: number) => (index: number): boolean => index % 4 === n
  scope.addHook('onRequest', async (_, reply) => { accept(reply, part(0)).answer() })
  scope.addHook('preHandler', async (_, reply) => { accept(reply, part(1)) })
  scope.addHook('onSend', async (_, reply) => { accept(reply, part(2)) })
  scope.addHook('onResponse', async (_, reply) => { accept(reply, part(3)) })
  scope.get(path, async () => ({ ok: true }))
}

function addPosted ({ scope, path, accept }: Route): void {
  scope.addHook('onRequest', async (_, reply) => { accept(reply).answer() })
  scope.post(path, async (request) => request.body)
}

function addNotFound ({ scope, accept }: Route): void {
  scope.setNotFoundHandler(async (_, reply) => {
    const visit = accept(reply)
    await visit.takeTime()
    visit.answer()
    return reply.code(404).send('not here')
  })
}

function addInner (route: Route): void {
  answering(() => 'from inside')({ ...route, path: '/inner' })
  answering(async (_, { request }, scope) => {
    const { body } = await scope.inject({ url: `${scope.prefix}/inner`, headers: { 'x-n': String(request.n), 'x-inner': '1' } })
    return body
  })(route)
}
