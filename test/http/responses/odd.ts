/** Responses off the beaten track: early answers, old clients, upgrades, other people's hands on the raw response. */
import { ServerResponse, type IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import Fastify from 'fastify'
import t from 'tap'
import { backgroundTasks, type ResponseOutcome } from '../../../lib/index.ts'
import { deferred } from '../../support/harness.ts'
import { open, site, Wire } from '../../support/http.ts'
import { settle } from '../../support/ledger.ts'


const broken = new Error('broken on purpose')

t.test('a job starts once when the answer goes out before the body has come in', async (t) => {
  const made = await site(t, ({ app, ledger }) => {
    app.addHook('onRequest', async (_, reply) => { ledger.accept(reply); return reply.code(413).send('too much') })
    app.post('/', async () => 'never')
  })
  const wire = new Wire(t, made)
  wire.socket.write('POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"a":')
  await wire.until('too much')
  await made.check(t)
})

t.test('a job starts once for a client of HTTP/1.0', async (t) => {
  const made = await site(t, ({ app, ledger }) => { app.get('/', async (_, reply) => { ledger.accept(reply); return 'sent' }) })
  const wire = new Wire(t, made)
  wire.socket.write('GET / HTTP/1.0\r\n\r\n')
  await wire.until('sent')
  await made.check(t)
})

t.test('early hints are not the answer', async (t) => {
  const gate = deferred()
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', async (_, reply) => {
      ledger.accept(reply)
      reply.writeEarlyHints({ link: '</style.css>; rel=preload' })
      await gate.promise
      ledger.events.push('handler')
      return 'sent'
    })
  })
  const wire = new Wire(t, made)
  wire.send('/')
  await wire.until('103 Early Hints')
  await settle()
  gate.resolve()
  await made.check(t)
  t.same(made.ledger.events, ['handler', 'job'])
})

t.test('headers that were flushed are not the end', async (t) => {
  const gate = deferred()
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', async (_, reply) => {
      ledger.accept(reply)
      reply.hijack()
      reply.raw.writeHead(200)
      reply.raw.flushHeaders()
      await gate.promise
      reply.raw.end('sent')
    })
  })
  const wire = new Wire(t, made)
  wire.send('/')
  await wire.until('200 OK')
  await settle()
  t.equal((await made.job()).state, 'pending')
  gate.resolve()
  await made.check(t)
})

t.test('a job of an upgraded connection starts once, when the peer leaves', async (t) => {
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', (_, reply) => {
      ledger.accept(reply)
      reply.hijack()
      reply.request.raw.socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n')
    })
    // As @fastify/websocket does it.
    app.server.on('upgrade', (request: IncomingMessage, socket: Socket) => {
      socket.on('error', () => {}).on('end', () => { socket.end() }).resume()
      const response = new ServerResponse(request)
      response.assignSocket(socket)
      app.routing(request, response)
    })
  })
  const wire = new Wire(t, made)
  wire.socket.write('GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n')
  await wire.until('101')
  await settle()
  t.equal((await made.job()).state, 'pending')
  wire.socket.destroy()
  await made.check(t)
})

t.test('the jobs of two applications that share a response start once each', async (t) => {
  const inner = Fastify()
  t.teardown(() => inner.close())
  await inner.register(backgroundTasks, { drainTimeout: 1_000 })
  const made = await site(t, ({ app, ledger }) => {
    inner.get('/', async (_, reply) => { ledger.accept(reply); return 'from inside' })
    app.get('/', async (request, reply) => {
      ledger.accept(reply)
      reply.hijack()
      inner.routing(request.raw, reply.raw)
    })
  })
  await inner.ready()
  t.equal((await made.ask('/')).body, 'from inside')
  await made.ledger.accepted(2)
  await inner.background.onIdle({ timeout: 1_000 }).catch(() => {})
  await made.check(t, 2)
})

/** A handler that has staged its job, hears that its client has left, and then does `what`. */
async function afterLeaving (t: any, before: (raw: ServerResponse) => void, what: (reply: any) => unknown): Promise<ResponseOutcome[]> {
  const gate = deferred()
  const outcomes: ResponseOutcome[] = []
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', async (_, reply) => {
      before(reply.raw)
      ledger.accept(reply, { when: (outcome) => { outcomes.push(outcome); return true } })
      await gate.promise
      return what(reply)
    })
  })
  const exchange = await open(made, '/')
  await made.ledger.accepted(1)
  exchange.leave()
  await made.ledger.entries[0]!.end.promise
  gate.resolve()
  await made.check(t)
  return outcomes
}

t.test('what somebody else laid over the response is called and stays, also when the client has left', async (t) => {
  const called: string[] = []
  let laidOver: unknown
  let found: unknown
  await afterLeaving(t, (raw) => {
    // As session and compression middleware does.
    const end = raw.end.bind(raw) as (...args: unknown[]) => ServerResponse
    laidOver = (...args: unknown[]) => { called.push('end'); return end(...args) }
    Object.assign(raw, { end: laidOver })
  }, (reply) => {
    reply.send('unheard')
    found = Object.getOwnPropertyDescriptor(reply.raw, 'end')?.value
  })
  t.same(called, ['end'])
  t.equal(found, laidOver)
})

t.test('the outcome has the status that a hijacker wrote when the client had left', async (t) => {
  const outcomes = await afterLeaving(t, () => {}, (reply) => {
    reply.hijack()
    reply.raw.writeHead(418)
    reply.raw.end()
  })
  t.same(outcomes, [{ statusCode: 418, error: undefined, aborted: true }])
})

t.test('a throw while a slow onSend hook holds the answer back is an error, for Fastify answers it', async (t) => {
  const gate = deferred()
  const made = await site(t, ({ app, ledger }) => {
    app.addHook('onSend', async () => { await gate.promise })
    app.get('/', async (_, reply) => {
      ledger.accept(reply)
      reply.send('sent')
      setImmediate(() => { gate.resolve() })
      throw broken
    })
  })
  t.match(await made.ask('/'), { status: 500 })
  await made.check(t, 1, 1)
  t.match(await made.job(), { state: 'cancelled', reason: 'response' })
})

t.test('a throw after something was written by hand breaks the response, and is no error', async (t) => {
  const outcomes: ResponseOutcome[] = []
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', async (_, reply) => {
      ledger.accept(reply, { when: (outcome) => { outcomes.push(outcome); return true } })
      reply.raw.writeHead(200)
      reply.raw.write('begun')
      await settle()
      throw broken
    })
  })
  t.match(await made.ask('/'), { status: 200, body: 'begun', broken: true })
  await made.check(t)
  t.match(outcomes, [{ error: undefined, aborted: true }])
})

t.test('the same reply may be answered by another handler of the application', async (t) => {
  const made = await site(t, ({ app, ledger }) => {
    app.get('/inner', async (_, reply) => { ledger.accept(reply, {}, 'inner'); return 'from inside' })
    app.get('/outer', async (request, reply) => {
      ledger.accept(reply, {}, 'outer')
      reply.hijack()
      request.raw.url = '/inner'
      app.routing(request.raw, reply.raw)
    })
  })
  t.equal((await made.ask('/outer')).body, 'from inside')
  await made.check(t, 2)
  t.same(made.ledger.events, ['outer', 'inner'])
})
