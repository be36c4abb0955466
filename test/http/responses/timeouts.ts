/** Responses that a server's own timeouts end. The times are real and short, and nothing is measured. */
import { Readable } from 'node:stream'
import t from 'tap'
import { deferred } from '../../support/harness.ts'
import { open, site, Wire } from '../../support/http.ts'
import { settle } from '../../support/ledger.ts'


const always = { when: 'always' } as const

t.test('a job starts once when handlerTimeout answers in place of the handler', async (t) => {
  const gate = deferred()
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', { handlerTimeout: 20 }, async (_, reply) => {
      ledger.accept(reply, always)
      await gate.promise
      return 'late'
    })
  })
  t.equal((await made.ask('/')).status, 503)
  await made.check(t)
  gate.resolve()
  await made.check(t)
})

t.test('what handlerTimeout answers is an error', async (t) => {
  const gate = deferred()
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', { handlerTimeout: 20 }, async (_, reply) => {
      ledger.accept(reply)
      await gate.promise
      return 'late'
    })
  })
  await made.ask('/')
  await made.check(t, 1, 1)
  t.match(await made.job(), { state: 'cancelled', reason: 'response' })
  gate.resolve()
})

t.test('a job that the handler stages after handlerTimeout has answered starts once', async (t) => {
  const gate = deferred()
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', { handlerTimeout: 20 }, async (_, reply) => {
      await gate.promise
      ledger.accept(reply, always)
      return 'late'
    })
  })
  t.equal((await made.ask('/')).status, 503)
  gate.resolve()
  await made.check(t)
})

t.test('a job starts once when handlerTimeout cuts a response off in mid-stream', async (t) => {
  const outcomes: unknown[] = []
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', { handlerTimeout: 20 }, async (_, reply) => {
      ledger.accept(reply, { when: (outcome) => { outcomes.push(outcome); return true } })
      const stream = new Readable({ read () {} })
      stream.push('begun')
      return reply.send(stream)
    })
  })
  t.match(await made.ask('/'), { status: 200, broken: true })
  await made.check(t)
  t.same(outcomes, [{ statusCode: 200, error: undefined, aborted: true }])
})

t.test('a job starts once, after its handler, when connectionTimeout cuts the connection', async (t) => {
  const gate = deferred()
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', async (_, reply) => {
      ledger.accept(reply)
      await gate.promise
      ledger.events.push('handler')
      return 'unheard'
    })
  }, { server: { connectionTimeout: 20 } })
  t.match(await made.ask('/'), { broken: true })
  await made.ledger.entries[0]!.end.promise
  await settle()
  gate.resolve()
  await made.check(t)
  t.same(made.ledger.events, ['handler', 'job'])
})

t.test('a job starts once when connectionTimeout cuts a response off in mid-stream', async (t) => {
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', async (_, reply) => {
      ledger.accept(reply)
      const stream = new Readable({ read () {} })
      stream.push('begun')
      return reply.send(stream)
    })
  }, { server: { connectionTimeout: 20 } })
  t.match(await made.ask('/'), { status: 200, broken: true })
  await made.check(t)
})

t.test('a job staged in onRequest starts once when requestTimeout gives the body up', async (t) => {
  const made = await site(t, ({ app, ledger }) => {
    app.addHook('onRequest', async (_, reply) => { ledger.accept(reply, always) })
    app.post('/', async () => 'never')
  }, { server: { requestTimeout: 20, http: { connectionsCheckingInterval: 10, headersTimeout: 20 } } })
  const wire = new Wire(t, made)
  wire.socket.write('POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"a":')
  await wire.until('408')
  t.match(wire.received, /^HTTP\/1.1 408/)
  await made.check(t)
})

t.test('a job staged in onTimeout starts once', async (t) => {
  const made = await site(t, ({ app, ledger }) => {
    app.addHook('onTimeout', async (_, reply) => { ledger.accept(reply) })
    app.get('/', async (_, reply) => {
      while (ledger.entries.length === 0) await settle()
      return reply.send('unheard')
    })
  }, { server: { connectionTimeout: 20 } })
  const exchange = await open(made, '/')
  await made.ledger.accepted(1)
  exchange.leave()
  await made.check(t)
})
