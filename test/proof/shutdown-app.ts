/**
 * The service that is shut down, as a Fastify plugin: for close-with-grace (shutdown-child.ts) and for fastify-cli,
 * which takes it as it is. Every job is written to a ledger, before it is offered and when it ends, synchronously: what
 * is not in there did not happen.
 */
import { writeSync } from 'node:fs'
import { performance } from 'node:perf_hooks'
import type { FastifyInstance, FastifyReply } from 'fastify'
import { backgroundTasks, type JobContext, type JobHandle, type JobOptions } from '../../lib/index.ts'

export interface Scenario {
  readonly seed: number
  readonly how: 'close-with-grace' | 'fastify-cli'
  readonly http2: boolean
  readonly drainTimeout: number
  readonly abortGrace: number
  /** When the supervisor kills. */
  readonly delay: number
  /** SIGTERM a second time, while it closes. */
  readonly twice: boolean
  /** Jobs that never end and ignore their signals, as many as this. */
  readonly stuck: number
  /** Clients that listen to an endless stream. */
  readonly streams: number
  /** Clients that send one request after the other, each on its own connection, or session. */
  readonly clients: number
  /** Answers after which the signal comes. */
  readonly answers: number
}

/** One line each in the ledger: `offered n`, `accepted n id`, `refused n code`, `done id`, `dead id`, `named id ms since the closing began`. */
export type Entry = 'offered' | 'accepted' | 'refused' | 'done' | 'dead' | 'named'

/** The ledger's file, opened by the parent. */
const LEDGER = 3
let offered = 0
const write = (entry: Entry, ...rest: unknown[]): void => { writeSync(LEDGER, `${[entry, ...rest].join(' ')}\n`) }

/** Calls what adds a job, and writes down what became of the call. */
async function offer (add: () => JobHandle | Promise<JobHandle>): Promise<JobHandle | undefined> {
  const n = offered++
  write('offered', n)
  try {
    const job = await add()
    write('accepted', n, job.id)
    return job
  } catch (error) {
    write('refused', n, (error as { code?: string }).code ?? String(error))
    return undefined
  }
}

const wait = (ms: number): Promise<void> => new Promise((resolve) => { setTimeout(resolve, ms) })
const kinds: Record<string, [JobOptions, (context: JobContext) => unknown]> = {
  quick: [{}, () => wait(1)],
  slow: [{}, () => wait(40)],
  sync: [{}, () => 'at once'],
  polite: [{}, ({ signal }) => Promise.race([wait(200), new Promise((resolve) => { signal.addEventListener('abort', resolve) })])],
  stuck: [{ timeout: 0 }, () => new Promise(() => {})],
  overdue: [{ timeout: 20, attempts: 1 }, () => wait(80)],
  dead: [{ attempts: 1 }, () => { throw new Error('no') }],
  retry: [{ attempts: 2, backoff: 60_000 }, () => { throw new Error('again') }],
  delayed: [{ delay: 60_000 }, () => {}],
  soon: [{ delay: 30 }, () => wait(1)],
  chain: [{}, async ({ app }) => { await wait(5); await offer(() => app.background.add('quick')) }]
}
export const kindNames = Object.keys(kinds)

// fastify-cli wants to see two parameters.
export default async function service (app: FastifyInstance, _options: object): Promise<void> {
  const scenario = JSON.parse(process.env['SCENARIO'] ?? '{}') as Scenario
  const { drainTimeout, abortGrace } = scenario
  let closingSince = NaN
  app.addHook('preClose', async () => {
    closingSince = performance.now()
    console.log('closing')
  })
  await app.register(backgroundTasks, {
    concurrency: 5 + scenario.stuck, drainTimeout, abortGrace, maxWait: 20, maxQueueSize: 300,
    onUnfinished: (jobs) => { for (const { id } of jobs) write('named', id, Math.round(performance.now() - closingSince)) }
  })
  for (const [name, [options, body]] of Object.entries(kinds)) app.background.define(name, options, (_payload, context) => body(context))
  app.background.addHook('onTaskEnd', ({ id }) => { write('done', id) })
  app.background.addHook('onTaskDead', ({ id }) => { write('dead', id) })
  addRoutes(app)
}

function addRoutes (app: FastifyInstance): void {
  app.get<{ Params: { kind: string } }>('/staged/:kind', async (request, reply) => {
    await offer(() => reply.background(request.params.kind))
    return reply.code(202).send('ok')
  })
  app.get<{ Params: { kind: string } }>('/late/:kind', async (request, reply) => {
    await wait(30)
    await offer(() => reply.background(request.params.kind))
    return 'ok'
  })
  app.get<{ Params: { kind: string } }>('/added/:kind', async (request) => {
    await offer(() => app.background.add(request.params.kind))
    return 'ok'
  })
  // Its handle stays inside, but its id is in the answer: written down before that goes out.
  app.get<{ Params: { kind: string } }>('/accepted/:kind', { onSend: noteAccepted }, async (request, reply) => reply.accepted(request.params.kind))
  app.get('/stream', (_request, reply) => {
    reply.hijack()
    reply.raw.writeHead(200, { 'content-type': 'text/event-stream' })
    reply.raw.write('data: 1\n\n')
  })
}

async function noteAccepted (_request: unknown, reply: FastifyReply, payload: unknown): Promise<unknown> {
  const n = offered++
  write('offered', n)
  const { jobId, code } = JSON.parse(String(payload)) as { jobId?: string, code?: string }
  if (jobId !== undefined) write('accepted', n, jobId)
  else write('refused', n, code ?? reply.statusCode)
  return payload
}
