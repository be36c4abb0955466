/** Jobs staged in hooks, and what other plugins' hooks do to a response. */
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import compress from '@fastify/compress'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import t from 'tap'
import { deferred } from '../../support/harness.ts'
import { open, protocols, site } from '../../support/http.ts'
import { settle } from '../../support/ledger.ts'


type Accept = (reply: FastifyReply) => void

const broken = new Error('broken on purpose')
const always = { when: 'always' } as const

const stagedIn: Record<string, (app: FastifyInstance, accept: Accept) => void> = {
  onRequest: (app, accept) => app.addHook('onRequest', async (_, reply) => { accept(reply) }),
  'onRequest, with done': (app, accept) => app.addHook('onRequest', (_, reply, done) => { accept(reply); done() }),
  preParsing: (app, accept) => app.addHook('preParsing', async (_, reply) => { accept(reply) }),
  preValidation: (app, accept) => app.addHook('preValidation', async (_, reply) => { accept(reply) }),
  preHandler: (app, accept) => app.addHook('preHandler', async (_, reply) => { accept(reply) }),
  'preHandler, which answers itself': (app, accept) => app.addHook('preHandler', async (_, reply) => { accept(reply); return reply.send('early') }),
  preSerialization: (app, accept) => app.addHook('preSerialization', async (_, reply, payload) => { accept(reply); return payload }),
  onSend: (app, accept) => app.addHook('onSend', (_request, reply, payload, done) => { accept(reply); done(null, payload) }),
  'an async onSend': (app, accept) => app.addHook('onSend', async (_, reply, payload) => { await settle(); accept(reply); return payload }),
  onResponse: (app, accept) => app.addHook('onResponse', (_request, reply, done) => { accept(reply); done() }),
  'an async onResponse': (app, accept) => app.addHook('onResponse', async (_, reply) => { await settle(); accept(reply) }),
  'a scheduled timer': (app, accept) => app.addHook('onResponse', async (_, reply) => { setTimeout(() => { accept(reply) }, 1) })
}

const compressed: Record<string, (reply: FastifyReply) => unknown> = {
  'a body': () => 'sent',
  'a stream': () => Readable.from(['one ', 'two']),
  'a stream that fails in its middle': ({ raw }) => Readable.from((async function * () {
    yield randomBytes(200_000)
    while (!raw.headersSent) await settle()
    throw broken
  })())
}

for (const protocol of protocols) {
  for (const [name, stage] of Object.entries(stagedIn)) {
    t.test(`a job staged in ${name} starts once, over ${protocol}`, async (t) => {
      const made = await site(t, ({ app, ledger }) => {
        stage(app, (reply) => { ledger.accept(reply) })
        app.get('/', async () => ({ ok: true }))
      }, { protocol })
      t.equal((await made.ask('/')).status, 200)
      await made.check(t)
    })
  }

  t.test(`a job staged in an onError hook starts once, over ${protocol}`, async (t) => {
    const made = await site(t, ({ app, ledger }) => {
      app.addHook('onError', async (_, reply) => { ledger.accept(reply, { when: 'error' }) })
      app.get('/', async () => { throw broken })
    }, { protocol })
    t.equal((await made.ask('/')).status, 500)
    await made.check(t)
  })

  t.test(`both jobs start once when an onSend hook throws and is run again for its error, over ${protocol}`, async (t) => {
    let calls = 0
    const made = await site(t, ({ app, ledger }) => {
      app.addHook('onSend', async (_, reply) => {
        ledger.accept(reply, always)
        if (++calls === 1) throw broken
      })
      app.get('/', async () => 'sent')
    }, { protocol })
    t.equal((await made.ask('/')).status, 500)
    await made.check(t, 2)
  })

  t.test(`a job starts once when an onSend hook throws each time, over ${protocol}`, async (t) => {
    const made = await site(t, ({ app, ledger }) => {
      app.addHook('onSend', async () => { throw broken })
      app.get('/', async (_, reply) => { ledger.accept(reply, always); return 'sent' })
    }, { protocol })
    t.equal((await made.ask('/')).status, 500)
    await made.check(t)
  })

  t.test(`a job waits for a slow onSend hook, over ${protocol}`, async (t) => {
    const gate = deferred()
    const made = await site(t, ({ app, ledger }) => {
      app.addHook('onSend', async () => { await gate.promise })
      app.get('/', async (_, reply) => { ledger.accept(reply); return 'sent' })
    }, { protocol })
    const asked = made.ask('/')
    await made.ledger.accepted(1)
    await settle()
    t.equal((await made.job()).state, 'pending')
    gate.resolve()
    t.equal((await asked).status, 200)
    await made.check(t)
  })

  for (const [what, answer] of Object.entries(compressed)) {
    t.test(`a job starts once when ${what} is compressed behind a slow onSend hook, over ${protocol}`, async (t) => {
      const made = await site(t, async ({ app, ledger }) => {
        app.addHook('onSend', async () => { await settle() })
        await app.register(compress, { threshold: 0, encodings: ['gzip'] })
        app.get('/', async (_, reply) => { ledger.accept(reply); return reply.type('text/plain').send(answer(reply)) })
      }, { protocol })
      t.match(await made.ask('/', { headers: { 'accept-encoding': 'gzip' } }), { status: 200, headers: { 'content-encoding': 'gzip' } })
      await made.check(t)
    })
  }

  const badHooks: Record<string, (request: FastifyRequest, reply: FastifyReply, done: () => void) => void> = {
    throws: () => { throw broken },
    'never calls done': () => {}
  }
  for (const [what, hook] of Object.entries(badHooks)) {
    t.test(`a job starts once when another plugin's onResponse hook ${what}, over ${protocol}`, async (t) => {
      const made = await site(t, ({ app, ledger }) => {
        app.addHook('onResponse', hook)
        app.get('/', async (_, reply) => { ledger.accept(reply); return 'sent' })
      }, { protocol, before: (app) => { app.addHook('onResponse', hook) } })
      t.equal((await made.ask('/')).status, 200)
      await made.check(t)
    })
  }

  t.test(`a job staged when the client has aborted waits for the handler, over ${protocol}`, async (t) => {
    const inHandler = deferred()
    const gate = deferred()
    const made = await site(t, ({ app, ledger }) => {
      app.get('/', async (_, reply) => {
        reply.raw.once('close', () => { ledger.accept(reply) })
        inHandler.resolve()
        await gate.promise
        ledger.events.push('handler')
        return 'unheard'
      })
    }, { protocol })
    const exchange = await open(made, '/')
    await inHandler.promise
    exchange.leave()
    await made.ledger.accepted(1)
    await settle()
    gate.resolve()
    await made.check(t)
    t.same(made.ledger.events, ['handler', 'job'])
  })
}

t.test('a job staged in onRequestAbort starts once, after the handler', async (t) => {
  const inHandler = deferred()
  const gate = deferred()
  const made = await site(t, ({ app, ledger }) => {
    const replies = new WeakMap<FastifyRequest, FastifyReply>()
    app.addHook('onRequest', async (request, reply) => { replies.set(request, reply) })
    app.addHook('onRequestAbort', async (request) => { ledger.accept(replies.get(request) as FastifyReply) })
    app.get('/', async () => {
      inHandler.resolve()
      await gate.promise
      ledger.events.push('handler')
      return 'unheard'
    })
  })
  const exchange = await open(made, '/')
  await inHandler.promise
  exchange.leave()
  await made.ledger.accepted(1)
  await settle()
  gate.resolve()
  await made.check(t)
  t.same(made.ledger.events, ['handler', 'job'])
})

t.test('a route of a plugin that was registered before ours knows its errors too', async (t) => {
  const made = await site(t, () => {}, {
    before: (app) => {
      app.register(async (child) => {
        child.get('/', async (_, reply) => { made.ledger.accept(reply); throw broken })
      })
    }
  })
  t.equal((await made.ask('/')).status, 500)
  await made.check(t, 1, 1)
  t.match(await made.job(), { state: 'cancelled', reason: 'response' })
})
