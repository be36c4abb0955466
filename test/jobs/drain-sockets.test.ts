import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { get as getHttp } from 'node:http'
import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2'
import { connect, type AddressInfo, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { fileURLToPath } from 'node:url'
import Fastify, { type FastifyInstance, type FastifyReply } from 'fastify'
import t from 'tap'
import { backgroundTasks, memory, type JobHandle } from '../../lib/index.ts'
import { TestClock } from '../support/clock.ts'
import { deferred, record, setup, until, type Harness, type HarnessOptions } from '../support/harness.ts'
import { typescriptLoader } from '../support/loaders.ts'
import { watchLeaks } from '../support/leaks.ts'
import { tls } from '../support/tls.ts'

watchLeaks(t)

const nothing = () => {}
type TestLike = Parameters<typeof setup>[0]
type Tap = Parameters<Parameters<typeof t.test>[0]>[0]

function portOf (app: FastifyInstance): number {
  return (app.server.address() as AddressInfo).port
}

async function dial (t: TestLike, app: FastifyInstance): Promise<Socket> {
  const socket = connect(portOf(app), '127.0.0.1')
  socket.on('error', nothing)
  t.teardown(() => socket.destroy())
  await once(socket, 'connect')
  return socket
}

async function dialTls (t: TestLike, app: FastifyInstance): Promise<Socket> {
  const socket = connectTls({ host: '127.0.0.1', port: portOf(app), ca: tls.cert })
  socket.on('error', nothing)
  t.teardown(() => socket.destroy())
  await once(socket, 'secureConnect')
  return socket
}

function get (socket: Socket, path: string): void {
  socket.write(`GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`)
}

/** All that a socket received so far. */
function heard (socket: Socket): () => string {
  let text = ''
  socket.on('data', (chunk) => { text += String(chunk) })
  return () => text
}

/**
 * A listening application whose route `/hold` calls `work` when it is let go.
 * `preClosed` resolves when the closing has got past our preClose hook.
 */
async function listening (t: TestLike, options: HarnessOptions = {}, work: (reply: FastifyReply) => unknown = () => 'ok') {
  const harness = await setup(t, options)
  const { app } = harness
  const arrived = deferred()
  const open = deferred()
  const preClosed = deferred()
  app.addHook('preClose', async () => { preClosed.resolve() })
  app.get('/hold', async (_request, reply) => {
    arrived.resolve()
    await open.promise
    return work(reply)
  })
  app.get('/ping', async () => 'pong')
  app.background.define('task', (payload) => payload)
  await app.listen({ port: 0, host: '127.0.0.1' })
  return { ...harness, arrived: arrived.promise, letGo: () => { open.resolve() }, preClosed: preClosed.promise }
}

t.test('requests in flight when the closing begins', async (t) => {
  t.test('may still stage and add jobs, which run before close is over', async (t) => {
    const jobs: JobHandle[] = []
    const { app, background, arrived, letGo, preClosed } = await listening(t, {}, async (reply) => {
      jobs.push(reply.background('task', 'staged'), await reply.server.background.add('task', 'added'))
      return 'ok'
    })
    const socket = await dial(t, app)
    const answer = heard(socket)
    get(socket, '/hold')
    await arrived
    const closing = app.close()
    await preClosed
    letGo()
    await until(() => answer().includes('\r\n\r\n'))
    socket.end()
    await closing
    t.match(answer(), /^HTTP\/1\.1 200 /)
    for (const job of jobs) t.match(await record(background, job.id), { state: 'completed' })
    await t.rejects(background.add('task'), { code: 'FST_BG_CLOSING', statusCode: 503 })
  })

  t.test('the drain clock starts with the closing, not with the end of the requests', async (t) => {
    const { app, background, clock, arrived, letGo, preClosed } = await listening(t)
    const job = await background.add(() => new Promise(() => {}))
    const socket = await dial(t, app)
    get(socket, '/hold')
    await arrived
    const closing = app.close()
    await preClosed
    await clock.advance(9_000)
    t.match(await record(background, job.id), { state: 'cancelled', reason: 'shutdown' })
    letGo()
    socket.end()
    await closing
  })

  t.test('after the deadline they may add no more', async (t) => {
    const { app, clock, arrived, letGo, preClosed } = await listening(t, {}, (reply) => { reply.background('task'); return 'ok' })
    const socket = await dial(t, app)
    const answer = heard(socket)
    get(socket, '/hold')
    await arrived
    const closing = app.close()
    await preClosed
    await clock.advance(9_000)
    letGo()
    await until(() => answer().includes('\r\n\r\n'))
    socket.end()
    await closing
    t.match(answer(), /^HTTP\/1\.1 503 /)
    t.match(answer(), /FST_BG_CLOSING/)
  })

  t.test('a kept-alive client can read that health says draining', async (t) => {
    const { app, background, clock, arrived, letGo, preClosed } = await listening(t, { server: { return503OnClosing: false } })
    const end = deferred()
    await background.add(() => end.promise)
    const [busy, reader] = [await dial(t, app), await dial(t, app)]
    get(busy, '/hold')
    await arrived
    // The reader's request is on its way before the closing begins: afterwards its idle connection would be closed.
    reader.write('GET /health/jobs?strict=1 HTTP/1.1\r\nhost: x\r\n')
    await clock.settle()
    const closing = app.close()
    await preClosed
    const answer = heard(reader)
    reader.write('\r\n')
    await until(() => answer().includes('\r\n\r\n'))
    t.match(answer(), /^HTTP\/1\.1 503 /)
    t.match(answer(), /"status":"draining"/)
    letGo()
    end.resolve()
    // Node 20 keeps their connections for another second.
    busy.end()
    reader.end()
    await closing
  })
})

t.test('clients that keep their connections, with TLS or without, do not hold up the close', async (t) => {
  const closed = await Promise.all(([[dial, {}], [dialTls, { https: tls }]] as const).map(async ([connected, options]) => {
    const { app, arrived, letGo, preClosed } = await listening(t, { server: { keepAliveTimeout: 50_000, ...options } })
    const keeps = await connected(t, app)
    const answer = heard(keeps)
    const gone = once(keeps, 'close')
    get(keeps, '/hold')
    await arrived
    const closing = app.close()
    await preClosed
    await until(() => !app.server.listening) // the server has ended what was idle until now
    letGo()
    await Promise.all([closing, gone]) // Node 20 takes another second
    return { answer: answer(), keepAliveTimeout: app.server.keepAliveTimeout }
  }))
  t.match(closed, [1, 2].map(() => ({ answer: /^HTTP\/1\.1 200 /, keepAliveTimeout: 50_000 })), 'the application has its setting again')
})

t.test('who reads an answer slowly while the server closes gets all of it', async (t) => {
  const size = 20_000_000
  const { app, arrived, letGo, preClosed } = await listening(t, {}, () => Buffer.alloc(size, 'x'))
  const reader = await dial(t, app)
  get(reader, '/hold')
  await arrived
  const closing = app.close()
  await preClosed
  await until(() => !app.server.listening)
  letGo()
  let bytes = 0
  reader.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    reader.pause()
    setImmediate(() => { reader.resume() })
  })
  await Promise.all([closing, once(reader, 'close')])
  t.ok(bytes > size, 'and its headers')
})

t.test('order: jobs are drained before any other plugin closes, whichever was registered first', async (t) => {
  const clock = new TestClock()
  const app: FastifyInstance = Fastify()
  const order: string[] = []
  const database = (name: string) => Object.assign(async (instance: FastifyInstance) => {
    instance.addHook('preClose', async () => { order.push(`${name} preClose`) })
    instance.addHook('onClose', async () => { order.push(`${name} onClose`) })
  }, { [Symbol.for('skip-override')]: true })
  await app.register(database('early'))
  await app.register(backgroundTasks, { backend: memory({ clock }) })
  await app.register(database('late'))
  await app.register(async (child) => { child.addHook('onClose', async () => { order.push('child onClose') }) })
  app.server.on('close', () => { order.push('server closed') })
  const end = deferred()
  app.background.define('task', async () => { await end.promise; order.push('job') })
  app.get('/', async (_request, reply) => { reply.background('task'); return 'ok' })
  await app.listen({ port: 0, host: '127.0.0.1' })
  // Not by fetch, which keeps a timer of its own.
  await new Promise<void>((resolve) => { getHttp(app.listeningOrigin, { agent: false }, (response) => { response.resume().on('end', resolve) }) })
  await clock.settle()
  const closing = app.close()
  await until(() => order.includes('server closed'))
  end.resolve()
  await closing
  t.strictSame(order.slice(0, 4), ['early preClose', 'late preClose', 'server closed', 'job'])
  t.strictSame(order.slice(4).sort(), ['child onClose', 'early onClose', 'late onClose'])
})

t.test('the deadline holds while close() hangs', async (t) => {
  /** The job is judged and named although `close()` has not come to the end of the server. */
  async function judgedWhileHanging (t: Tap, { app, background, clock, said }: Harness, preClosed: Promise<void>, letGo: () => void): Promise<void> {
    const job = await background.add(() => new Promise(() => {}))
    await clock.settle()
    let closed = false
    const closing = app.close().finally(() => { closed = true })
    await preClosed
    await clock.advance(9_000)
    t.notOk(closed, 'close() hangs')
    t.match(await record(background, job.id), { state: 'cancelled', reason: 'shutdown' })
    t.match(said('shutdown left jobs undone'), [{ jobs: [{ jobId: job.id }] }])
    t.equal(clock.pendingTimers, 0)
    letGo()
    await closing
    t.equal(said('shutdown left jobs undone').length, 1)
  }

  t.test('because of a keep-alive client with a request in flight', async (t) => {
    const harness = await listening(t)
    const socket = await dial(t, harness.app)
    get(socket, '/hold')
    await harness.arrived
    await judgedWhileHanging(t, harness, harness.preClosed, () => { harness.letGo(); socket.end() })
  })

  t.test('because of an event stream', async (t) => {
    let stream: FastifyReply | undefined
    const streaming = await setup(t)
    streaming.app.get('/events', (_request, reply) => {
      stream = reply
      reply.hijack()
      reply.raw.writeHead(200, { 'content-type': 'text/event-stream' })
      reply.raw.write('data: 1\n\n')
    })
    const preClosed = deferred()
    streaming.app.addHook('preClose', async () => { preClosed.resolve() })
    await streaming.app.listen({ port: 0, host: '127.0.0.1' })
    const socket = await dial(t, streaming.app)
    get(socket, '/events')
    await once(socket, 'data')
    await judgedWhileHanging(t, streaming, preClosed.promise, () => { stream?.raw.end(); socket.destroy() })
  })

  t.test('because of an open HTTP/2 session', async (t) => {
    const clock = new TestClock()
    const lines: Array<Record<string, unknown>> = []
    const logger = { level: 'trace', stream: { write: (line: string) => { lines.push(JSON.parse(line) as Record<string, unknown>) } } }
    const app = Fastify({ http2: true, logger, http2SessionTimeout: 0 } as never) as unknown as FastifyInstance
    await app.register(backgroundTasks, { backend: memory({ clock }) })
    const arrived = deferred()
    const preClosed = deferred()
    app.addHook('preClose', async () => { preClosed.resolve() })
    const open = deferred()
    app.get('/hold', async () => { arrived.resolve(); await open.promise; return 'ok' })
    await app.listen({ port: 0, host: '127.0.0.1' })
    const session: ClientHttp2Session = connectHttp2(`http://127.0.0.1:${portOf(app)}`)
    session.on('error', nothing)
    t.teardown(() => session.destroy())
    const stream = session.request({ ':path': '/hold' })
    stream.on('error', nothing)
    stream.resume()
    await arrived.promise
    const job = await app.background.add(() => new Promise(() => {}))
    await clock.settle()
    let closed = false
    const closing = app.close().finally(() => { closed = true })
    await preClosed.promise
    await clock.advance(9_000)
    t.notOk(closed, 'close() hangs')
    t.match(await app.background.get(job.id), { state: 'cancelled', reason: 'shutdown' })
    t.equal(lines.filter(({ msg }) => msg === 'shutdown left jobs undone').length, 1)
    open.resolve()
    session.destroy()
    await closing
    t.equal(clock.pendingTimers, 0)
  })

  t.test('and a client that leaves afterwards starts no timer', async (t) => {
    const { app, clock } = await setup(t)
    const staged = deferred()
    const preClosed = deferred()
    app.addHook('preClose', async () => { preClosed.resolve() })
    app.get('/hang', async (_request, reply) => {
      reply.background(nothing)
      staged.resolve()
      await new Promise(() => {})
    })
    await app.listen({ port: 0, host: '127.0.0.1' })
    const socket = await dial(t, app)
    get(socket, '/hang')
    await staged.promise
    const closing = app.close()
    await preClosed.promise
    await clock.advance(9_000)
    t.equal(clock.pendingTimers, 0)
    socket.destroy()
    await closing
    await clock.settle()
    t.equal(clock.pendingTimers, 0)
  })
})

t.test('forceCloseConnections', async (t) => {
  t.test('a handler that outlives its connection may not add after close', async (t) => {
    const thrown = deferred<unknown>()
    const { app, arrived, letGo } = await listening(t, { server: { forceCloseConnections: true } }, (reply) => {
      try {
        reply.background('task')
        thrown.resolve('nothing')
      } catch (error) {
        thrown.resolve(error)
      }
      return 'ok'
    })
    const socket = await dial(t, app)
    get(socket, '/hold')
    await arrived
    await app.close()
    letGo()
    t.match(await thrown.promise, { code: 'FST_BG_CLOSING', statusCode: 503 })
  })

  t.test('jobs are drained all the same', async (t) => {
    const { app, background } = await listening(t, { server: { forceCloseConnections: true } })
    const job = await background.add('task', 'x')
    await dial(t, app)
    await app.close()
    t.match(await record(background, job.id), { state: 'completed' })
  })

  t.test('a staged job whose connection is cut waits for its handler, at most until the deadline', async (t) => {
    const staged = deferred<JobHandle>()
    const harness = await setup(t, { server: { forceCloseConnections: true } })
    harness.app.get('/', async (_request, reply) => { staged.resolve(reply.background(nothing)); await new Promise(() => {}) })
    await harness.app.listen({ port: 0, host: '127.0.0.1' })
    const socket = await dial(t, harness.app)
    get(socket, '/')
    const job = await staged.promise
    let closed = false
    const closing = harness.app.close().finally(() => { closed = true })
    await once(socket, 'close')
    await harness.clock.settle()
    t.notOk(closed)
    await harness.clock.advance(8_000)
    await closing
    t.match(await record(harness.background, job.id), { state: 'cancelled', reason: 'shutdown' })
    t.equal(harness.clock.pendingTimers, 0)
  })
})

t.test('a program ends by itself', async (t) => {
  const programs: Array<[kind: string, title: string, said: RegExp]> = [
    [
      'left over', 'with a retry and a delayed job pending, a stuck one and one that has leaked',
      /^delayed cancelled shutdown, overdue cancelled shutdown, retry cancelled shutdown, stuck cancelled shutdown\nclosed\n$/
    ],
    ['client leaves after the deadline', 'when a client leaves after the deadline and its handler never answers', /^delayed cancelled shutdown\nclosed\n$/]
  ]
  const ends = new Map(programs.map(([kind]) => [kind, run(kind)]))
  for (const [kind, title, said] of programs) {
    t.test(title, async (t) => {
      const { output, code, signal } = await (ends.get(kind) as ReturnType<typeof run>)
      t.match(output, said)
      t.equal(code, 0)
      t.equal(signal, null, 'not killed')
    })
  }
})

/** Real time: a program that does not end is killed. */
function run (kind: string): Promise<{ output: string, code: number | null, signal: NodeJS.Signals | null }> {
  const file = fileURLToPath(new URL('../support/fixtures/shutdown.ts', import.meta.url))
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [...typescriptLoader, file, kind], { timeout: 30_000, killSignal: 'SIGKILL' }, (_error, output) => {
      resolve({ output, code: child.exitCode, signal: child.signalCode })
    })
  })
}
