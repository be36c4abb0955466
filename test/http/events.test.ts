/** Live states as server-sent events: contract section 4, on real sockets and with curl. */
import { spawn, spawnSync } from 'node:child_process'
import http, { type IncomingMessage } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import t from 'tap'
import { DurableBackend } from '../support/durable.ts'
import { deferred, setup, until, type Harness, type HarnessOptions } from '../support/harness.ts'
import { watchLeaks } from '../support/leaks.ts'

watchLeaks(t)

type TestLike = Parameters<typeof setup>[0]
const unknownId = '01890000-0000-7000-8000-000000000000'

interface Live extends Harness {
  port: () => number
  /** A job that runs until it is told to end; `tell` is its `progress`. */
  start: () => Promise<{ id: string, tell: (value: unknown) => void, end: (value?: unknown) => void }>
  open: (id: string, headers?: Record<string, string>) => Promise<Heard>
}

interface Heard {
  status: number
  headers: Record<string, unknown>
  /** All that came. */
  text: () => string
  /** The data of the events, and their ids. */
  states: () => string[]
  events: () => Array<{ id: string, data: Record<string, any> }>
  ended: () => boolean
  message: IncomingMessage
  leave: () => void
}

async function live (t: TestLike, options: HarnessOptions = {}): Promise<Live> {
  const harness = await setup(t, { routes: { events: true }, ...options })
  harness.background.define('task', (payload) => payload)
  await harness.app.listen({ port: 0, host: '127.0.0.1' })
  const port = (): number => (harness.app.server.address() as AddressInfo).port
  return Object.assign(harness, {
    port,
    async start () {
      const { promise, resolve } = deferred<unknown>()
      const said = deferred<(value: unknown) => void>()
      const { id } = await harness.background.add(({ progress }) => { said.resolve(progress); return promise }, { timeout: 0 })
      return { id, tell: await said.promise, end: resolve }
    },
    async open (id: string, headers: Record<string, string> = {}) {
      const request = http.get({ port: port(), host: '127.0.0.1', path: `/jobs/${id}/events`, agent: false, headers })
      t.teardown(() => { request.destroy() })
      request.on('error', () => {})
      const [message] = await once(request, 'response') as [IncomingMessage]
      let text = ''
      let ended = false
      message.setEncoding('utf8').on('data', (chunk: string) => { text += chunk }).on('end', () => { ended = true }).on('error', () => {})
      const events = (): Array<{ id: string, data: Record<string, any> }> => [...text.matchAll(/^id: (\S+)\ndata: (.*)\n\n/gm)]
        .map(([, id = '', data = '']) => ({ id, data: JSON.parse(data) as Record<string, any> }))
      return {
        status: message.statusCode ?? 0, headers: message.headers, message, text: () => text, events, ended: () => ended,
        states: () => events().map(({ data }) => data['state'] as string), leave: () => { request.destroy() }
      }
    }
  })
}

t.test('one event for each change, until the end', async (t) => {
  const { background, start, open, clock } = await live(t)
  await background.pause()
  const { id } = await background.add(() => 'done')
  const heard = await open(id)
  t.equal(heard.status, 200)
  t.match(heard.headers, { 'content-type': /^text\/event-stream/, 'cache-control': /no-store/, 'x-accel-buffering': 'no' })
  await until(() => heard.events().length === 1)
  await background.resume()
  await until(heard.ended)
  t.same(heard.states(), ['waiting', 'active', 'completed'])
  t.match(heard.events().at(-1)?.data, { jobId: id, state: 'completed', result: 'done', attemptsMade: 1 })
  t.match(heard.text(), /^retry: 1000\n\n/)

  const running = await start()
  const other = await open(running.id)
  await until(() => other.events().length === 1)
  running.tell({ percent: 50 })
  await clock.advance(1_000)
  await until(() => other.events().length === 2)
  t.same(other.events()[1]?.data['progress'], { percent: 50 })
  await clock.advance(5_000)
  t.equal(other.events().length, 2, 'nothing has changed')
  running.end()
  await until(other.ended)
})

t.test('retries and dead letters are told with their reasons', async (t) => {
  const { background, open, clock } = await live(t)
  const { id } = await background.add(() => { throw Object.assign(new Error('hunter2'), { code: 'E' }) }, { attempts: 2, backoff: 5_000, delay: 1_000 })
  const heard = await open(id)
  await until(() => heard.events().length === 1)
  await clock.advance(6_000)
  await until(heard.ended)
  t.same(heard.states(), ['delayed', 'waiting', 'active', 'delayed', 'waiting', 'active', 'failed'])
  t.match(heard.events().at(-1)?.data, { failure: 'exhausted', error: { name: 'Error', code: 'E' } })
  t.notMatch(heard.text(), /hunter2/, 'no text of an error without authorize')
})

t.test('who comes back with Last-Event-ID hears only what is new', async (t) => {
  const { start, open, clock } = await live(t)
  const running = await start()
  const first = await open(running.id)
  await until(() => first.events().length === 1)
  first.leave()
  const again = await open(running.id, { 'last-event-id': first.events()[0]?.id ?? '' })
  await clock.advance(1_000)
  t.same(again.events(), [])
  running.end('x')
  await until(again.ended)
  t.same(again.states(), ['completed'])
  const last = again.events()[0]?.id ?? ''
  const over = await open(running.id, { 'last-event-id': last })
  t.equal(over.status, 204, 'which tells a browser to stay away')
  const late = await open(running.id)
  await until(late.ended)
  t.same(late.events().map(({ id }) => id), [last])
})

t.test('a comment keeps the connection alive, and fifteen minutes end it', async (t) => {
  const { start, open, clock } = await live(t)
  const running = await start()
  const heard = await open(running.id)
  await until(() => heard.events().length === 1)
  const beats = (): number => heard.text().split('\n').filter((line) => line === ':').length
  await clock.advance(14_000)
  t.equal(beats(), 0)
  await clock.advance(1_000)
  await until(() => beats() === 1)
  await clock.advance(15 * 60_000 - 16_000)
  t.notOk(heard.ended())
  await clock.advance(1_000)
  await until(heard.ended)
  t.equal(beats(), 59)
  t.equal(clock.pendingTimers, 0)
  running.end()
})

t.test('two streams of one client, a hundred in all', async (t) => {
  const { start, open, port, clock, app } = await live(t, { server: { trustProxy: true } })
  const running = await start()
  const from = (n: number): Record<string, string> => ({ 'x-forwarded-for': `10.0.0.${n}` })
  const opened: Heard[] = []
  for (let n = 0; n < 50; n++) opened.push(await open(running.id, from(n)), await open(running.id, from(n)))
  const third = await open(running.id, from(7))
  const fresh = await open(running.id, from(200))
  t.match([third, fresh], [{ status: 429, headers: { 'retry-after': /\d/ } }, { status: 503, headers: { 'retry-after': /\d/ } }])
  await until(() => third.text().includes('FST_BG_TOO_MANY_STREAMS') && fresh.text().includes('FST_BG_TOO_MANY_STREAMS'))
  t.equal((await app.inject(`/jobs/${running.id}/status`)).statusCode, 200)
  opened[0]?.leave()
  await until(async () => (await open(running.id, from(200))).status === 200)
  t.equal((await open(running.id, from(200))).status, 503, 'one left, one came')
  running.end()
  await until(() => opened.slice(1).every((heard) => heard.ended()))
  t.ok(port() > 0)
  await clock.settle()
})

t.test('the doors', async (t) => {
  t.test('it is off until it is asked for, has a path of its own, and no HEAD', async (t) => {
    const off = await live(t, { routes: {} })
    const { id } = await off.background.add(() => {}, { delay: 1_000 })
    t.equal((await off.app.inject(`/jobs/${id}/events`)).statusCode, 404)
    const own = await live(t, { prefix: '/bg', routes: { events: '/watch/:id' } })
    const { id: done } = await own.background.add(() => 1)
    await own.clock.settle()
    t.match((await own.app.inject(`/bg/watch/${done}`)).body, /"state":"completed"/)
    t.equal((await own.app.inject({ method: 'HEAD', url: `/bg/watch/${done}` })).statusCode, 404)
  })

  t.test('what is unknown, malformed or foreign is a 404 of the same words', async (t) => {
    const { app, background, clock } = await live(t, { authorize: (_request, action, job) => { t.equal(action, 'read'); return job?.payload === 'mine' } })
    const { id } = await background.add(() => 1)
    await clock.settle()
    const bodies = new Set<string>()
    for (const which of [id, unknownId, 'x', '__proto__']) {
      const response = await app.inject(`/jobs/${which}/events`)
      t.equal(response.statusCode, 404)
      bodies.add(response.body)
    }
    t.equal(bodies.size, 1)
    t.match([...bodies][0], /FST_BG_JOB_NOT_FOUND/)
  })

  t.test('authorize lets a reader see the texts of errors', async (t) => {
    const { app, background, clock } = await live(t, { authorize: () => true })
    const { id } = await background.add(() => { throw new Error('why') })
    await clock.settle()
    t.match((await app.inject(`/jobs/${id}/events`)).body, /"message":"why"/)
  })
})

t.test('a shutdown ends the streams before the server waits for them', async (t) => {
  const { app, start, open } = await live(t, { server: { forceCloseConnections: false } })
  const running = await start()
  const heard = await open(running.id, { connection: 'close' })
  await until(() => heard.events().length === 1)
  const closing = app.close()
  await until(heard.ended)
  running.end()
  await closing
})

t.test('a client that does not read hears how things stand when it reads on', async (t) => {
  const { start, open, clock, background } = await live(t, { maxPayloadBytes: 1e6 })
  const running = await start()
  const heard = await open(running.id)
  await until(() => heard.events().length === 1)
  heard.message.pause()
  for (let n = 1; n <= 60; n++) {
    running.tell({ n, filler: 'x'.repeat(500_000) })
    await clock.advance(1_000)
  }
  running.tell({ n: 'last' })
  heard.message.resume()
  await until(async () => { await clock.advance(1_000); return (heard.events().at(-1)?.data['progress'] as { n?: unknown } | null)?.n === 'last' })
  t.ok(heard.events().length < 40, `${heard.events().length} events of 62`)
  running.end()
  await until(heard.ended)
  await background.onIdle()
})

t.test('a store that is away is no news, and the stream lasts', async (t) => {
  const backend = new DurableBackend()
  const { background, open } = await live(t, { backend })
  const read = backend.get.bind(backend)
  const { id } = await background.add('task', 'x', { delay: 60_000 })
  const heard = await open(id)
  await until(() => heard.events().length === 1)
  backend.get = async () => { throw new Error('away') }
  await background.cancel(id).catch(() => {})
  backend.get = read
  t.notOk(heard.ended())
  await background.cancel(id)
  await until(heard.ended)
  t.same(heard.states(), ['delayed', 'cancelled'])
})

const curl = spawnSync('curl', ['--version']).status === 0 ? false : 'NOT TESTED HERE: no curl'
t.test('curl -N shows them as they come', { skip: curl }, async (t) => {
  const { port, start } = await live(t)
  const running = await start()
  const child = spawn('curl', ['-sSN', `http://127.0.0.1:${port()}/jobs/${running.id}/events`], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => { text += chunk })
  await until(() => text.includes('"state":"active"'))
  running.end('by curl')
  const [code] = await once(child, 'close') as [number]
  t.equal(code, 0)
  t.match(text, /^retry: 1000\n\nid: \S+\ndata: \{.*"state":"active".*\}\n\nid: \S+\ndata: \{.*"state":"completed".*"result":"by curl".*\}\n\n$/)
})
