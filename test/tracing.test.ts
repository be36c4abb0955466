/** The subpath `tracing`, with the SDK of OpenTelemetry, @fastify/otel and @fastify/request-context. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { FastifyOtelInstrumentation } from '@fastify/otel'
import fastifyRequestContext from '@fastify/request-context'
import { context, propagation, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { CompositePropagator, W3CBaggagePropagator, W3CTraceContextPropagator } from '@opentelemetry/core'
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor, type ReadableSpan } from '@opentelemetry/sdk-trace-base'
import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import { backgroundTasks, UnrecoverableError, type JobContext, type Propagator } from '../lib/index.ts'
import { requestContext, tracing } from '../lib/tracing/index.ts'
import { sqlite } from '../lib/backends/sqlite/index.ts'
import { deferred, setup, type Harness } from './support/harness.ts'
import { watchLeaks } from './support/leaks.ts'
import { freshFile, noSqlite, SQLITE_WARNING } from './support/sqlite.ts'

watchLeaks(t, { allowWarnings: SQLITE_WARNING })

type TestLike = Parameters<typeof setup>[0]

/** The SDK, for one test. */
function startSdk (t: TestLike) {
  const exporter = new InMemorySpanExporter()
  const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] })
  trace.setGlobalTracerProvider(provider)
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  propagation.setGlobalPropagator(new CompositePropagator({ propagators: [new W3CTraceContextPropagator(), new W3CBaggagePropagator()] }))
  t.teardown(async () => {
    for (const api of [trace, context, propagation]) api.disable()
    await provider.shutdown()
  })
  const spans = (name: string): ReadableSpan[] => exporter.getFinishedSpans().filter((span) => span.name === name)
  return { provider, spans, span: (name: string) => spans(name)[0] as ReadableSpan }
}

type Traced = Harness & ReturnType<typeof startSdk>

async function traced (t: TestLike, before: (app: FastifyInstance) => Promise<void> | void = () => {}): Promise<Traced> {
  const sdk = startSdk(t)
  const harness = await setup(t)
  await harness.app.register(tracing)
  await before(harness.app)
  return { ...harness, ...sdk, get background () { return harness.app.background } }
}

t.test('the span "send" is part of the request, the span "process" a trace of its own that is linked to it', async (t) => {
  const { app, clock, provider, span, spans } = await traced(t, async (app) => {
    const instrumentation = new FastifyOtelInstrumentation()
    instrumentation.setTracerProvider(trace.getTracerProvider())
    await app.register(instrumentation.plugin())
  })
  t.ok(provider)
  app.background.define('mail', async () => 'sent')
  app.post('/', async (_request, reply) => reply.accepted('mail', { to: 'ada' }))
  const { jobId } = (await app.inject({ method: 'POST', url: '/' })).json<{ jobId: string }>()
  await clock.settle()
  const send = span('send mail')
  const process = span('process mail')
  const requests = spans('request').concat(spans('handler - (anonymous)')).concat(spans('POST /'))
  t.ok(requests.some((request) => request.spanContext().traceId === send.spanContext().traceId), 'the trace of the request')
  t.ok(send.parentSpanContext !== undefined)
  t.equal(send.kind, SpanKind.PRODUCER)
  t.match(send.attributes, {
    'messaging.system': 'fastify-background-tasks', 'messaging.operation.name': 'send', 'messaging.operation.type': 'send', 'messaging.destination.name': 'default',
    'messaging.message.id': jobId, 'messaging.message.body.size': 12, 'background.task': 'mail', 'background.request_id': 'req-1'
  })
  t.equal(process.kind, SpanKind.CONSUMER)
  t.equal(process.parentSpanContext, undefined)
  t.not(process.spanContext().traceId, send.spanContext().traceId)
  t.strictSame(process.links.map((link) => link.context.spanId), [send.spanContext().spanId])
  t.match(process.attributes, { 'messaging.operation.name': 'process', 'messaging.message.id': jobId, 'background.attempt': 1, 'background.outcome': 'completed' })
  t.equal(process.status.code, SpanStatusCode.UNSET)
})

t.test('each attempt is a trace; a failed one tells its error; a replay is linked to the same "send"', async (t) => {
  const { app, background, clock, span, spans } = await traced(t)
  let well = false
  app.background.define('flaky', { attempts: 2, backoff: 100 }, () => {
    if (!well) throw Object.assign(new TypeError('no'), { code: 'E_NO' })
  })
  await app.ready()
  const { id } = await background.add('flaky')
  await clock.advance(100)
  well = true
  await background.deadLetters.retry(id)
  await clock.settle()
  const attempts = spans('process flaky')
  t.strictSame(attempts.map(({ attributes }) => attributes['background.outcome']), ['retry', 'dead', 'completed'])
  t.strictSame(attempts.map(({ attributes }) => attributes['background.attempt']), [1, 2, 1])
  t.equal(new Set(attempts.map((attempt) => attempt.spanContext().traceId)).size, 3)
  t.strictSame(attempts.map(({ links }) => links[0]?.context.spanId), Array.from({ length: 3 }, () => span('send flaky').spanContext().spanId))
  const [first, second] = attempts as [ReadableSpan, ReadableSpan]
  t.match(first.status, { code: SpanStatusCode.ERROR, message: 'no' })
  t.match(first.attributes, { 'error.type': 'E_NO' })
  t.match(first.events, [{ name: 'exception', attributes: { 'exception.message': 'no', 'exception.stacktrace': /TypeError: no/ } }])
  t.equal(second.attributes['background.failure'], 'exhausted')
})

t.test('in the handler its span is active, with the baggage of the sender, and nothing of it reaches the next job', async (t) => {
  const { app, background, clock, span } = await traced(t)
  const seen: unknown[] = []
  app.background.define('inside', async () => {
    await Promise.resolve()
    seen.push(propagation.getActiveBaggage()?.getEntry('tenant')?.value)
    trace.getTracer('test').startSpan('query').end()
  })
  await app.ready()
  await context.with(propagation.setBaggage(context.active(), propagation.createBaggage({ tenant: { value: 'acme' } })), () => background.add('inside'))
  await clock.settle()
  await background.add('inside')
  await clock.settle()
  t.strictSame(seen, ['acme', undefined])
  t.equal(span('query').parentSpanContext?.spanId, span('process inside').spanContext().spanId)
})

t.test('hooks and subscribers hear of an end inside its span', async (t) => {
  const { app, background, clock, span } = await traced(t)
  let active: string | undefined
  app.background.addHook('onTaskDead', () => { active = trace.getActiveSpan()?.spanContext().spanId })
  await app.ready()
  await background.add(function dies () { throw new Error('no') })
  await clock.settle()
  t.equal(active, span('process dies').spanContext().spanId)
})

t.test('spans of cancelled, timed-out and hostile attempts end too', async (t) => {
  const { app, background, clock, spans } = await traced(t)
  await app.ready()
  const end = deferred()
  const { id } = await background.add(function cancelled () { return end.promise })
  await background.add(function late () { return end.promise }, { timeout: 10 })
  await background.add(function hostile () { throw new Proxy({}, { get () { throw new Error('trap') } }) })
  await clock.advance(20)
  await background.cancel(id)
  end.resolve()
  await clock.settle()
  t.strictSame(['cancelled', 'late', 'hostile'].map((name) => spans(`process ${name}`).map(({ attributes }) => attributes['background.outcome'])), [['cancelled'], ['dead'], ['dead']])
})

t.test('a job that another process runs is linked over the restart', { skip: noSqlite }, async (t) => {
  const { spans, span } = startSdk(t)
  const path = freshFile(t)
  const open = async (run: (payload: unknown, context: JobContext) => void): Promise<FastifyInstance> => {
    const app = Fastify()
    await app.register(fastifyRequestContext)
    await app.register(backgroundTasks, { backend: sqlite({ path }) })
    await app.register(tracing)
    await app.register(requestContext, { keys: ['tenant'] })
    app.background.define('kept', { attempts: 1 }, run)
    app.get('/', async (request, reply) => {
      request.requestContext.set('tenant' as never, 'acme' as never)
      return reply.accepted('kept', null)
    })
    t.teardown(() => app.close())
    await app.ready()
    return app
  }
  const one = await open(() => {})
  await one.background.pause()
  await one.inject({ url: '/', headers: { 'request-id': 'from-outside' } })
  await one.close()
  const ran = deferred<JobContext>()
  let tenant: unknown
  const other = await open((_payload, given) => {
    tenant = other.requestContext.get('tenant' as never)
    ran.resolve(given)
    throw new UnrecoverableError('no')
  })
  const { job } = await ran.promise
  await other.background.onIdle()
  t.equal(job.requestId, 'req-1')
  t.equal(tenant, 'acme')
  await other.background.deadLetters.retry(job.id)
  await other.background.onIdle()
  t.strictSame(spans('process kept').map(({ links }) => links[0]?.context.spanId), Array.from({ length: 2 }, () => span('send kept').spanContext().spanId))
  t.equal((await other.background.get(job.id))?.carrier?.traceparent?.split('-')[2], span('send kept').spanContext().spanId)
  const status = await other.inject(`/jobs/${job.id}/status`)
  t.notMatch(status.body, /acme|traceparent/)
})

t.test('values of the request context reach the handler: those that were chosen, a copy for each attempt', async (t) => {
  const harness = await setup(t)
  const { app, clock, background } = harness
  await app.register(fastifyRequestContext, { defaultStoreValues: () => ({ user: { name: 'ada' }, tenant: 'acme', database: { query () {} } }) })
  await app.register(requestContext, { keys: ['user', 'tenant', 'absent'] })
  const seen: unknown[] = []
  app.background.define('task', { attempts: 2, backoff: 10 }, async () => {
    await Promise.resolve()
    const store = app.requestContext.getStore() as unknown as { user: { name: string } }
    seen.push(structuredClone(store))
    store.user.name = 'changed'
    throw new Error('no')
  })
  app.get('/', async (_request, reply) => reply.accepted('task', null))
  await app.inject('/')
  await clock.advance(10)
  t.strictSame(seen, Array.from({ length: 2 }, () => ({ user: { name: 'ada' }, tenant: 'acme' })))
  await background.add(() => { seen.push(app.requestContext.getStore()) })
  await clock.settle()
  t.equal(seen[2], undefined)
  const { app: without } = await setup(t)
  without.register(requestContext, {} as { keys: string[] })
  await t.rejects(async () => { await without.ready() }, { code: 'FST_BG_BAD_OPTION' })
})

t.test('without an SDK a job carries nothing', async (t) => {
  const { app, background } = await setup(t)
  await app.register(tracing)
  await app.ready()
  const job = await background.add(function plain () { return 'done' })
  t.equal(await job.finished(), 'done')
  t.notOk('carrier' in (await background.get(job.id) ?? {}))
})

t.test('without @opentelemetry/api, tracing says so and does nothing', (t) => {
  const gone = 'export const resolve = (name, context, next) => { if (name === "@opentelemetry/api") throw Object.assign(new Error(name), { code: "ERR_MODULE_NOT_FOUND" }); return next(name, context) }'
  const dist = (file: string): string => new URL(`../dist/${file}`, import.meta.url).href
  const program = `
    import { register } from 'node:module'
    register('data:text/javascript,' + encodeURIComponent(${JSON.stringify(gone)}))
    const { default: Fastify } = await import('fastify')
    const { default: backgroundTasks } = await import(${JSON.stringify(dist('index.js'))})
    const { tracing } = await import(${JSON.stringify(dist('tracing/index.js'))})
    const app = Fastify({ logger: true })
    await app.register(backgroundTasks)
    await app.register(tracing)
    await app.ready()
    await (await app.background.add(() => 'done')).finished()
    await app.close()`
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8', cwd: join(import.meta.dirname, '..') })
  t.equal(status, 0, stderr)
  t.match(stdout, /not traced: the package @opentelemetry\/api is not installed/)
  t.match(stdout, /job completed/)
  t.end()
})

t.test('a propagator that fails, or puts in what is no text or too much, is logged, and the job goes on', async (t) => {
  const { app, background, clock, said } = await setup(t)
  const trap = (): never => { throw new Error('trap') }
  const wrong: Propagator[] = [
    { inject: trap, extract: trap },
    { inject: (_job, carrier) => { Object.assign(carrier, { no: 5 }) }, extract: () => undefined },
    { inject: (_job, carrier) => { carrier.much = 'x'.repeat(20_000) }, extract: () => ({ run: (work) => work(), end: trap }) },
    { inject: (_job, carrier) => { carrier.fine = 'text' }, extract: ({ carrier: { fine } }) => ({ run: (work) => { t.equal(fine, 'text'); return work() } }) }
  ]
  for (const propagator of wrong) background.propagate(propagator)
  t.throws(() => background.propagate({} as Propagator), { code: 'FST_BG_BAD_OPTION' })
  await app.ready()
  t.throws(() => background.propagate(wrong[0] as Propagator), { code: 'FST_BG_HOOK_AFTER_READY' })
  const job = await background.add(() => 'done')
  t.equal(await job.finished(), 'done')
  await clock.advance(1_000)
  t.strictSame((await background.get(job.id))?.carrier, { fine: 'text' })
  t.strictSame(said().filter(({ level }) => level === 50).map(({ msg }) => msg).sort(), ['end failed', 'extract failed', 'inject failed', 'inject failed', 'inject failed'])
})

t.test('work is done once, and its answer counts, whatever a propagator makes of it', async (t) => {
  const wrong: Array<[title: string, scope: unknown, said: string[]]> = [
    ['throws before', { run () { throw new Error('trap') } }, ['run failed']],
    ['throws after', { run (work: () => unknown) { work(); throw new Error('trap') } }, ['run failed']],
    ['does not call it', { run () {} }, ['run failed']],
    ['is not there', {}, ['run failed']],
    ['calls it twice', { run (work: () => unknown) { work(); return work() } }, []],
    ['keeps the answer', { run (work: () => unknown) { work() } }, []],
    ['answers later', { run: async (work: () => unknown) => work() }, []]
  ]
  for (const [title, scope, expected] of wrong) {
    const { app, background, clock, said } = await setup(t)
    background.propagate({ inject () {}, extract: () => scope as ReturnType<Propagator['extract']> })
    await app.ready()
    let ran = 0
    const fine = await background.add(function fine () { return ++ran })
    const wrong = await background.add(function wrong () { throw new TypeError('its own') }, { attempts: 1 })
    await clock.advance(1_000)
    t.match(await background.get(fine.id), { state: 'completed', result: 1 }, title)
    t.match(await background.get(wrong.id), { state: 'failed', error: { message: 'its own' } }, title)
    t.equal(ran, 1, title)
    t.strictSame([...new Set(said().filter(({ option }) => option !== undefined).map(({ msg }) => msg))], expected, title)
  }
})

t.test('the span "send" ends also when the propagator of the SDK throws, and the job goes on without a context', async (t) => {
  const { app, background, spans, said } = await traced(t)
  propagation.disable()
  const trap = (): never => { throw new Error('trap') }
  propagation.setGlobalPropagator({ inject: trap, extract: trap, fields: () => [] })
  await app.ready()
  t.equal(await (await background.add(function task () { return 'done' })).finished(), 'done')
  t.equal(spans('send task').length, 1)
  t.strictSame(said().filter(({ level }) => level === 50).map(({ msg }) => msg), ['inject failed', 'extract failed'])
})
