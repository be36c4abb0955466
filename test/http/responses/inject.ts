/** `app.inject`: no socket, `finish` comes twice and inside `reply.send`. */
import { Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply } from 'fastify'
import t from 'tap'
import { deferred } from '../../support/harness.ts'
import { site } from '../../support/http.ts'
import { settle } from '../../support/ledger.ts'


type Accept = (reply: FastifyReply) => void

const endings: Record<string, { route: (app: FastifyInstance, accept: Accept) => unknown, status: number }> = {
  'the handler returns a value': { status: 200, route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); return 'sent' }) },
  'a sync handler sends': { status: 200, route: (app, accept) => app.get('/', (_, reply) => { accept(reply); reply.send('sent') }) },
  'it is staged after sending': { status: 200, route: (app, accept) => app.get('/', (_, reply) => { reply.send('sent'); accept(reply) }) },
  'it is staged a turn after sending': { status: 200, route: (app, accept) => app.get('/', (_, reply) => { reply.send('sent'); setImmediate(() => { accept(reply) }) }) },
  'a stream is sent': { status: 200, route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); return Readable.from(['a', 'b']) }) },
  'the answer is 204': { status: 204, route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); return reply.code(204).send() }) },
  'the reply is hijacked': { status: 200, route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); reply.hijack(); reply.raw.end('x') }) },
  'the handler throws': { status: 500, route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); throw new Error('broken on purpose') }) },
  'nothing was found': { status: 404, route: (app, accept) => app.setNotFoundHandler(async (_, reply) => { accept(reply); return reply.code(404).send() }) },
  'an onResponse hook stages it': { status: 200, route: (app, accept) => { app.addHook('onResponse', async (_, reply) => { accept(reply) }); app.get('/', async () => 'sent') } }
}

for (const [title, { route, status }] of Object.entries(endings)) {
  t.test(`a job starts once and after an injected request when ${title}`, async (t) => {
    const made = await site(t, ({ app, ledger }) => route(app, (reply) => { ledger.accept(reply, { when: 'always' }) }))
    t.equal((await made.app.inject('/')).statusCode, status)
    await made.check(t)
  })
}

t.test('an injected response counts as complete in the turn in which it was sent', async (t) => {
  const outcomes: unknown[] = []
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', (_, reply) => {
      reply.send('sent')
      ledger.accept(reply, { onAbort: 'drop', when: (outcome) => { outcomes.push(outcome); return true } })
    })
  })
  await made.app.inject('/')
  await made.check(t)
  t.same(outcomes, [{ statusCode: 200, error: undefined, aborted: false }])
})

t.test('a job does not start inside reply.send, nor in the same turn', async (t) => {
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', (_, reply) => {
      ledger.accept(reply)
      reply.send('sent')
      ledger.events.push('sent')
      process.nextTick(() => { ledger.events.push('tick') })
      void Promise.resolve().then(() => { ledger.events.push('microtask') })
    })
  })
  await made.app.inject('/')
  await made.check(t)
  t.same(made.ledger.events.at(0), 'sent')
  t.same(made.ledger.events.at(-1), 'job')
})

t.test('a job staged inside an inner app.inject is released by the inner response', async (t) => {
  const ran = deferred()
  const made = await site(t, ({ app, ledger }) => {
    app.get('/inner', async (_, reply) => {
      reply.background(() => { ledger.events.push('inner job'); ran.resolve() })
      return 'inner'
    })
    app.get('/outer', async (_, reply) => {
      ledger.accept(reply, {}, 'outer job')
      await app.inject('/inner')
      await ran.promise // in vain, if it waited for the outer response
      ledger.events.push('outer handler')
      return 'outer'
    })
  })
  t.equal((await made.ask('/outer')).body, 'outer')
  await made.check(t)
  t.same(made.ledger.events, ['inner job', 'outer handler', 'outer job'])
})

t.test('an injected request that is aborted lets its job start after the handler', async (t) => {
  const gate = deferred()
  const controller = new AbortController()
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', async (_, reply) => {
      ledger.accept(reply)
      await gate.promise
      ledger.events.push('handler')
      return 'unheard'
    })
  })
  const asked = made.app.inject({ url: '/', signal: controller.signal })
  asked.catch(() => {})
  await made.ledger.accepted(1)
  controller.abort()
  await t.rejects(asked)
  await settle()
  gate.resolve()
  await made.check(t)
  t.same(made.ledger.events, ['handler', 'job'])
})
