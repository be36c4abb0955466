/** Clients that leave: before the answer, in the middle of it, after it. */
import { Readable } from 'node:stream'
import { ReadableStream } from 'node:stream/web'
import type { FastifyInstance, FastifyReply } from 'fastify'
import t from 'tap'
import { memory, type JobOptions } from '../../../lib/index.ts'
import { TestClock } from '../../support/clock.ts'
import { closeInTime, deferred } from '../../support/harness.ts'
import { open, protocols, site, Wire, type Protocol, type Site } from '../../support/http.ts'
import { leftOn, settle } from '../../support/ledger.ts'


const broken = new Error('broken on purpose')

interface Ending {
  title: string
  answer: (reply: FastifyReply) => unknown
  /** For the application, before the route. */
  setUp?: (app: FastifyInstance) => void
  /** What `when: 'handled'` makes of it. */
  handled: boolean
}

const answers: Ending[] = [
  { title: 'returns a value', answer: () => 'unheard', handled: true },
  { title: 'returns an object', answer: () => ({ unheard: true }), handled: true },
  { title: 'sends', answer: (reply) => reply.code(201).send('unheard'), handled: true },
  { title: 'sends nothing', answer: (reply) => reply.send(), handled: true },
  { title: 'sends a 204', answer: (reply) => reply.code(204).send(), handled: true },
  { title: 'sends a 500', answer: (reply) => reply.code(500).send('unheard'), handled: true },
  { title: 'sends a stream', answer: (reply) => reply.send(Readable.from(['unheard'])), handled: true },
  { title: 'sends a failing stream', answer: (reply) => reply.send(new Readable({ read () { this.destroy(broken) } })), handled: true },
  { title: 'sends a web stream', answer: (reply) => reply.send(new ReadableStream({ pull (c) { c.enqueue(Buffer.from('unheard')); c.close() } })), handled: true },
  { title: 'sends an empty web stream', answer: (reply) => reply.send(new ReadableStream({ start (c) { c.close() } })), handled: true },
  { title: 'sends a Response', answer: (reply) => reply.send(new Response('unheard')), handled: true },
  { title: 'sends a big body', answer: (reply) => reply.send(Buffer.alloc(4_000_000)), handled: true },
  { title: 'redirects', answer: (reply) => reply.redirect('/elsewhere'), handled: true },
  { title: 'calls callNotFound', answer: (reply) => { reply.callNotFound() }, handled: true },
  { title: 'hijacks and ends by hand', answer: (reply) => { reply.hijack(); reply.raw.end('unheard') }, handled: true },
  { title: 'hijacks and destroys', answer: (reply) => { reply.hijack(); reply.raw.destroy() }, handled: true },
  { title: 'throws', answer: () => { throw broken }, handled: false },
  { title: 'sends an error', answer: (reply) => reply.send(broken), handled: false },
  {
    title: 'throws into an error handler that answers 200',
    setUp: (app) => { app.setErrorHandler(async (_error, _request, reply) => reply.code(200).send('never mind')) },
    answer: () => { throw broken },
    handled: false
  },
  {
    title: 'throws into an error handler that throws',
    setUp: (app) => { app.setErrorHandler(async () => { throw new Error('me too') }) },
    answer: () => { throw broken },
    handled: false
  },
  {
    title: 'answers into an onSend hook that throws',
    setUp: (app) => { app.addHook('onSend', async () => { throw broken }) },
    answer: () => 'unheard',
    handled: false
  }
]

interface Scene {
  site: Site
  /** Of the response, before the job was staged. */
  bare: Record<string, number>
  /** The client leaves; resolves when the server knows. */
  leave: () => Promise<void>
  /** Lets the handler go on. */
  goOn: () => void
}

/** A handler that has staged its job and waits, and a client that may leave. */
async function scene (t: any, protocol: Protocol, ending: Ending, options: JobOptions, method = 'GET'): Promise<Scene> {
  const gate = deferred()
  let bare: Record<string, number> = {}
  const made = await site(t, ({ app, ledger }) => {
    ending.setUp?.(app)
    app.get('/', async (_, reply) => {
      bare = leftOn(reply.raw)
      ledger.accept(reply, options)
      await gate.promise
      ledger.events.push('handler')
      return ending.answer(reply)
    })
  }, { protocol })
  const exchange = await open(made, '/', { method })
  await made.ledger.accepted(1)
  return {
    site: made,
    bare,
    goOn: () => { gate.resolve() },
    async leave () {
      exchange.leave()
      await made.ledger.entries[0]!.end.promise
      await settle()
    }
  }
}

for (const protocol of protocols) {
  for (const ending of answers) {
    t.test(`a job starts once, after its handler, when the client has left and the handler ${ending.title}, over ${protocol}`, async (t) => {
      const { site, bare, leave, goOn } = await scene(t, protocol, ending, {})
      const { raw } = site.ledger.entries[0]!
      await leave()
      t.ok(leftOn(raw)['close']! <= bare['close']!, 'nobody listens to what has happened')
      t.equal((await site.job()).state, 'pending', 'it waits for the handler')
      goOn()
      await site.check(t, 1, ending.handled ? 0 : 1)
      t.match(await site.job(), ending.handled ? { state: 'completed' } : { state: 'cancelled', reason: 'response' })
      t.same(site.ledger.events, ending.handled ? ['handler', 'job'] : ['handler'])
      t.match(leftOn(raw), { pipe: 0, newListener: 0, writeHead: undefined, end: undefined, destroy: undefined }, 'nothing is left on it')
    })
  }

  t.test(`a job starts once when the client of a HEAD has left, over ${protocol}`, async (t) => {
    const { site, leave, goOn } = await scene(t, protocol, answers[0]!, {}, 'HEAD')
    await leave()
    t.equal((await site.job()).state, 'pending')
    goOn()
    await site.check(t)
    t.same(site.ledger.events, ['handler', 'job'])
  })

  t.test(`a job is dropped after its handler when the client has left and onAbort says so, over ${protocol}`, async (t) => {
    const { site, leave, goOn } = await scene(t, protocol, answers[0]!, { onAbort: 'drop' })
    await leave()
    t.equal((await site.job()).state, 'pending')
    goOn()
    await site.check(t, 1, 1)
    t.match(await site.job(), { state: 'cancelled', reason: 'client-abort' })
    t.match(site.logged('job cancelled'), [{ reason: 'client-abort', jobId: site.ledger.entries[0]!.id }])
  })

  for (const [what, never] of [
    ['never answers', () => new Promise(() => {})],
    // Fastify sends nothing then, nobody can tell it from an answer still to come.
    ['returns nothing', () => undefined]
  ] as const) {
    t.test(`a job starts at maxHold when the client has left and the handler ${what}, over ${protocol}`, async (t) => {
      const clock = new TestClock()
      const made = await site(t, ({ app, ledger }) => {
        app.get('/', async (_, reply) => {
          ledger.accept(reply)
          await ledger.entries[0]!.end.promise
          return never()
        })
      }, { protocol, plugin: { maxHold: 60_000, backend: memory({ clock }) } })
      t.teardown(() => closeInTime(made.app, clock))
      const exchange = await open(made, '/')
      await made.ledger.accepted(1)
      exchange.leave()
      await made.ledger.entries[0]!.end.promise
      await clock.advance(59_000)
      t.equal((await made.job()).state, 'pending')
      await clock.advance(1_000)
      await made.check(t)
      t.match(await made.job(), { state: 'completed' })
    })
  }

  t.test(`a job starts once when the client leaves in the middle of the body, over ${protocol}`, async (t) => {
    const outcomes: unknown[] = []
    const made = await site(t, ({ app, ledger }) => {
      app.get('/', async (_, reply) => {
        ledger.accept(reply, { when: (outcome) => { outcomes.push(outcome); return true } })
        return reply.send(endless())
      })
    }, { protocol })
    const exchange = await open(made, '/')
    const { status, body } = await exchange.response()
    body.once('data', () => { exchange.leave() }).on('error', () => {})
    t.equal(status, 200)
    await made.check(t)
    t.same(outcomes, [{ statusCode: 200, error: undefined, aborted: true }])
  })

  t.test(`a job starts once when the client leaves after the answer, over ${protocol}`, async (t) => {
    const outcomes: unknown[] = []
    const made = await site(t, ({ app, ledger }) => {
      app.get('/', async (_, reply) => {
        ledger.accept(reply, { when: (outcome) => { outcomes.push(outcome); return true } })
        return 'sent'
      })
    }, { protocol })
    const exchange = await open(made, '/')
    const answer = await exchange.answer()
    exchange.leave()
    t.equal(answer.body, 'sent')
    await made.check(t)
    t.same(outcomes, [{ statusCode: 200, error: undefined, aborted: false }])
  })

  t.test(`a job starts once when a hijacked response is never ended and the client leaves, over ${protocol}`, async (t) => {
    const outcomes: unknown[] = []
    const made = await site(t, ({ app, ledger }) => {
      app.get('/', async (_, reply) => {
        reply.hijack()
        ledger.accept(reply, { when: (outcome) => { outcomes.push(outcome); return true } })
      })
    }, { protocol })
    const exchange = await open(made, '/')
    await made.ledger.accepted(1)
    exchange.leave()
    await made.check(t)
    t.match(outcomes, [{ error: undefined, aborted: true }])
  })

  t.test(`a job starts once when a hijacked response has written something and the client leaves, over ${protocol}`, async (t) => {
    const made = await site(t, ({ app, ledger }) => {
      app.get('/', async (_, reply) => {
        ledger.accept(reply)
        reply.hijack()
        reply.raw.writeHead(200, { 'content-type': 'text/event-stream' })
        reply.raw.write('data: 1\n\n')
      })
    }, { protocol })
    const exchange = await open(made, '/')
    const { body } = await exchange.response()
    body.once('data', () => { exchange.leave() }).on('error', () => {})
    await made.check(t)
  })

  t.test(`a job does not start while a slow reader still has to take a big body, over ${protocol}`, async (t) => {
    const size = 32_000_000
    const made = await site(t, ({ app, ledger }) => {
      app.get('/', async (_, reply) => {
        ledger.accept(reply)
        return reply.send(Buffer.alloc(size, 'x'))
      })
    }, { protocol })
    const exchange = await open(made, '/')
    const { body } = await exchange.response()
    await settle(50)
    t.equal((await made.job()).state, 'pending')
    let bytes = 0
    for await (const chunk of body) bytes += (chunk as Buffer).length
    t.equal(bytes, size)
    await made.check(t)
  })
}

/** Text without end, no faster than it is taken. */
function endless (): Readable {
  return new Readable({ read () { setImmediate(() => { this.push('more and more') }) } })
}

for (const [what, hurt] of [
  ['resets the connection', (wire: Wire) => { wire.socket.resetAndDestroy() }],
  ['half-closes', (wire: Wire) => { wire.socket.end() }]
] as const) {
  t.test(`a job starts once, after its handler, when the client ${what} before the answer`, async (t) => {
    const gate = deferred()
    const made = await site(t, ({ app, ledger }) => {
      app.get('/', async (_, reply) => {
        ledger.accept(reply)
        await gate.promise
        ledger.events.push('handler')
        return 'unheard'
      })
    })
    const wire = new Wire(t, made)
    wire.send('/')
    await made.ledger.accepted(1)
    hurt(wire)
    await made.ledger.entries[0]!.end.promise
    gate.resolve()
    await made.check(t)
    t.same(made.ledger.events, ['handler', 'job'])
  })

  t.test(`a job starts once when the client ${what} in the middle of the body`, async (t) => {
    const made = await site(t, ({ app, ledger }) => {
      app.get('/', async (_, reply) => { ledger.accept(reply); return reply.send(endless()) })
    })
    const wire = new Wire(t, made)
    wire.send('/')
    await wire.until('more and more')
    hurt(wire)
    await made.check(t)
  })
}
