/** Questions that somebody has in production, asked of what a service has written. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { request, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import fc from 'fast-check'
import Fastify, { type FastifyInstance } from 'fastify'
import pino from 'pino'
import t from 'tap'
import { backgroundTasks, memory, UnrecoverableError } from '../lib/index.ts'
import { TestClock } from './support/clock.ts'
import { closeInTime, deferred } from './support/harness.ts'
import { watchLeaks } from './support/leaks.ts'
import { inPath } from './support/servers/find.ts'
import { freshFile, noSqlite, SQLITE_WARNING } from './support/sqlite.ts'

watchLeaks(t, { allowWarnings: SQLITE_WARNING })

interface Written extends Record<string, unknown> {
  msg?: string
  span?: string
  attributes?: Record<string, unknown>
}

interface Service {
  readonly written: Written[]
  readonly child: ChildProcess
  /** Resolves with the first line that fits. */
  readonly line: (fits: (line: Written) => boolean) => Promise<Written>
  readonly ask: (method: string, path: string, headers?: Record<string, string>) => Promise<Record<string, unknown>>
}

async function start (t: { teardown (run: () => unknown): unknown }, path: string): Promise<Service> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'support', 'fixtures', 'evidence.ts'), path], { stdio: ['ignore', 'pipe', 'ignore'] })
  const gone = once(child, 'exit')
  t.teardown(async () => {
    child.kill('SIGKILL')
    await gone
  })
  const written: Written[] = []
  const waits = new Set<() => void>()
  let rest = ''
  child.stdout.on('data', (chunk: Buffer) => {
    const lines = (rest + chunk.toString()).split('\n')
    rest = lines.pop() as string
    written.push(...lines.map((line) => JSON.parse(line) as Written))
    for (const look of waits) look()
  })
  const line = (fits: (line: Written) => boolean): Promise<Written> => new Promise((resolve) => {
    const look = (): void => {
      const found = written.find(fits)
      if (found === undefined) return
      waits.delete(look)
      resolve(found)
    }
    waits.add(look)
    look()
  })
  const { msg = '' } = await line(({ msg }) => msg?.startsWith('Server listening') === true)
  const ask: Service['ask'] = async (method, url, headers = {}) => {
    const asking = request(`${/http:\S+/.exec(msg)?.[0] ?? ''}${url}`, { method, headers, agent: false }).end()
    const [response] = await once(asking, 'response') as [IncomingMessage]
    let body = ''
    for await (const chunk of response) body += String(chunk)
    return JSON.parse(body) as Record<string, unknown>
  }
  return { written, child, line, ask }
}

t.test('from the id of a request to its job, its attempts, the dead letter and its replay, over a kill: in the log, in traces, in the record', { skip: noSqlite }, async (t) => {
  const path = freshFile(t)
  const first = await start(t, path)
  const { jobId } = await first.ask('POST', '/orders', { 'x-request-id': 'order-4711' })
  await first.line(({ msg }) => msg === 'shipping')
  first.child.kill('SIGKILL')
  await once(first.child, 'exit')
  const second = await start(t, path)
  await second.line(({ msg }) => msg === 'job failed')
  await second.ask('POST', `/replay/${String(jobId)}`)
  await second.line(({ msg }) => msg === 'job completed')
  const record = await second.ask('GET', `/record/${String(jobId)}`)
  const status = await second.ask('GET', `/jobs/${String(jobId)}/status`)
  const written = [...first.written, ...second.written]

  // In the log: the request names the job, the job its attempts.
  const ofRequest = written.filter(({ reqId, msg }) => reqId === 'order-4711' && !/^(incoming request|request completed)$/.test(msg ?? ''))
  t.strictSame(new Set(ofRequest.map(({ jobId }) => jobId)), new Set([jobId]))
  t.strictSame(ofRequest.map(({ msg, attempt }) => [msg, attempt]), [
    ['shipping', 1],
    ['attempt of a process that died: the job starts again, or is a dead letter', 1],
    ['shipping', 2],
    ['job failed', 2],
    ['dead letter starts again', undefined],
    ['shipping', 1],
    ['job completed', 1]
  ])

  // In traces: the request's trace holds the sender, and its attempts are linked to that.
  const spans = written.filter(({ span }) => span !== undefined)
  const [send] = spans.filter(({ attributes }) => attributes?.['background.request_id'] === 'order-4711' && attributes['messaging.operation.name'] === 'send')
  t.match(send, { span: 'send ship', attributes: { 'messaging.message.id': jobId } })
  t.ok(spans.some(({ traceId, attributes }) => traceId === send?.traceId && attributes?.['http.route'] === '/orders'), 'it is part of the trace of the request')
  const attempts = spans.filter(({ links }) => (links as string[]).includes(send?.spanId as string))
  t.strictSame(attempts.map(({ span, attributes }) => [span, attributes?.['messaging.message.id'], attributes?.['background.attempt'], attributes?.['background.outcome']]), [
    ['process ship', jobId, 2, 'dead'],
    ['process ship', jobId, 1, 'completed']
  ], 'the attempt that was killed has no end to tell of')

  // In the record and the status.
  t.match(record, {
    id: jobId, requestId: 'order-4711', state: 'completed', result: 'shipped', attemptsMade: 1,
    history: [{ attempt: 1, error: { code: 'FST_BG_STALLED' } }, { attempt: 2, error: { message: 'no such address' } }]
  })
  t.equal((record.carrier as { traceparent: string }).traceparent.split('-')[2], send?.spanId)
  t.match(status, { jobId, state: 'completed', attemptsMade: 1 })
})

const jq = inPath('jq')
if (jq === undefined && (process.env.BG_REQUIRE ?? '').split(',').includes('jq')) throw new Error('jq is required and not here: apt-get install jq')
if (jq === undefined) console.error('SKIPPED: no jq on this machine: apt-get install jq')

/** A day of a service: mails, reports, an hour without the mail server, a run of too many jobs, a job that holds the loop. */
async function liveADay (t: { teardown (run: () => unknown): unknown }) {
  const clock = new TestClock()
  const lines: string[] = []
  const loggerInstance = pino({ timestamp: () => `,"time":${clock.now()}` }, { write: (line: string) => { lines.push(line) } })
  const app = Fastify({ loggerInstance })
  t.teardown(() => closeInTime(app as unknown as FastifyInstance, clock))
  await app.register(backgroundTasks, { backend: memory({ clock }), concurrency: 5, maxQueueSize: 30 })
  const [chances] = fc.sample(fc.infiniteStream(fc.integer({ min: 0, max: 99 })), { numRuns: 1, seed: 20261122 }) as unknown as [Iterator<number>]
  const chance = (): number => chances.next().value as number
  const ledger = { mails: 0, reports: 0, dead: [] as string[], failures: 0, refused: 0, slowest: '', longest: 0, downFrom: 0, downTo: 0 }
  let down = false
  app.background.define('mail', { attempts: 3, backoff: { type: 'fixed', delay: 60_000, jitter: 0 } }, async () => {
    if (down) throw Object.assign(new Error('connect ECONNREFUSED 10.0.0.5:25'), { code: 'ECONNREFUSED' })
  })
  app.background.define('report', { attempts: 1 }, async (payload: { ms: number, wrong: boolean }) => {
    const end = deferred()
    clock.setTimer(() => { end.resolve() }, payload.ms)
    await end.promise
    if (payload.wrong) throw new UnrecoverableError('no such customer')
  })
  app.background.addHook('onTaskError', (_job, error) => { if ((error as { code?: string }).code === 'ECONNREFUSED') ledger.failures++ })
  app.background.addHook('onTaskDead', (job) => { ledger.dead.push(job.id) })
  app.background.addHook('onTaskEnd', (job) => { ledger[job.name === 'mail' ? 'mails' : 'reports']++ })
  app.get('/mail', async (_request, reply) => reply.accepted('mail', null))
  await app.ready()
  for (let hour = 0; hour < 24; hour++) {
    down = hour === 10
    if (down) ledger.downFrom = clock.now()
    if (hour === 11) ledger.downTo = clock.now()
    for (let n = 0; n < 6; n++) {
      await app.inject('/mail')
      const ms = 100 + chance() * 20 + hour * 3 + n
      const report = await app.background.add('report', { ms, wrong: chance() < 5 })
      if (ms > ledger.longest) Object.assign(ledger, { longest: ms, slowest: report.id })
      await clock.advance(600_000)
    }
    if (hour !== 15) continue
    await app.background.pause()
    for (let n = 0; n < 100; n++) await app.background.add('mail').catch(() => { ledger.refused++ })
    await clock.advance(1_000)
    await app.background.resume()
    await clock.advance(1_000)
  }
  await clock.advance(600_000)
  return { lines, ledger }
}

t.test('a day of production can be read with jq alone', { skip: jq === undefined && 'no jq on this machine' }, async (t) => {
  const { lines, ledger } = await liveADay(t)
  const ask = (question: string): unknown => {
    const { stdout, stderr } = spawnSync(jq as string, ['-s', question], { input: lines.join(''), encoding: 'utf8', maxBuffer: 1 << 28 })
    t.equal(stderr, '')
    return JSON.parse(stdout)
  }
  t.strictSame(ask('[.[] | select(.msg == "job completed")] | group_by(.task) | map({key: .[0].task, value: length}) | from_entries'),
    { mail: ledger.mails, report: ledger.reports }, 'how many jobs of each task completed?')
  t.equal(ask('[.[] | select(.err.code == "ECONNREFUSED") | .count // 1] | add'), ledger.failures, 'how often did the mail server not answer?')
  t.strictSame((ask('[.[] | select(.msg == "job failed") | .jobIds // [.jobId]] | add') as string[]).sort(), ledger.dead.sort(), 'which jobs are dead letters?')
  const [from, to] = ask('[.[] | select(.err.code == "ECONNREFUSED") | .time] | [min, max]') as [number, number]
  t.ok(from >= ledger.downFrom && from < ledger.downFrom + 60_000 && to <= ledger.downTo, 'when was it away?')
  t.equal(ask('[.[] | select(.msg == "jobs refused: the queue is full") | .count] | add'), ledger.refused, 'how many jobs were refused?')
  t.equal(ask('[.[] | select(.durationMs != null and .task == "report")] | max_by(.durationMs) | .jobId'), ledger.slowest, 'which report took longest?')
  const dead = ask('[.[] | select(.msg == "job failed" and .task == "mail" and .reqId != null)][0] | .reqId') as string
  t.strictSame(ask(`[.[] | select(.reqId == "${dead}" and .jobId != null) | [.msg, .attempt]]`),
    [['attempt failed, the job will be retried', 1], ['attempt failed, the job will be retried', 2], ['job failed', 3]], 'what became of this request?')
  t.strictSame(ask('[.[] | select(.level >= 40) | select(.jobId == null and .queue == null)] | length'), 0, 'every warning names what it is about')
})
