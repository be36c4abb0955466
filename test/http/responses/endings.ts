/**
 * Every way a handler can end its response, over every protocol: the job it staged starts once, after the response,
 * and no listener is left that would not be there without it.
 */
import { Readable } from 'node:stream'
import { ReadableStream } from 'node:stream/web'
import type { FastifyInstance, FastifyReply } from 'fastify'
import t from 'tap'
import { leftOn, settle } from '../../support/ledger.ts'
import { protocols, site, type Answer, type AskOptions, type Site } from '../../support/http.ts'

type Accept = (reply: FastifyReply) => void

interface Ending {
  title: string
  /** Adds the route `/`, which stages one job. */
  route: (app: FastifyInstance, accept: Accept) => unknown
  ask?: AskOptions
  wanted: Partial<Answer>
  /** Jobs staged. */
  jobs?: number
}

const broken = new Error('broken on purpose')

/** Some text, then an error. */
function failing (text: string[]): Readable {
  return Readable.from((async function * () {
    yield * text
    await settle() // the text is on its way
    throw broken
  })())
}

const plain: Ending[] = [
  {
    title: 'an async handler returns a value',
    route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); return { ok: true } }),
    wanted: { status: 200, body: '{"ok":true}' }
  },
  {
    title: 'an async handler returns reply.send()',
    route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); return reply.code(201).send('made') }),
    wanted: { status: 201, body: 'made' }
  },
  {
    title: 'an async handler returns nothing',
    route: (app, accept) => app.get('/', async (_, reply) => { accept(reply) }),
    wanted: { status: 200, body: '' }
  },
  {
    title: 'a sync handler sends',
    route: (app, accept) => app.get('/', (_, reply) => { accept(reply); reply.send('sent') }),
    wanted: { status: 200, body: 'sent' }
  },
  {
    title: 'a sync handler sends later',
    route: (app, accept) => app.get('/', (_, reply) => { accept(reply); setImmediate(() => reply.send('sent')) }),
    wanted: { status: 200, body: 'sent' }
  },
  {
    title: 'a handler stages its job after sending',
    route: (app, accept) => app.get('/', (_, reply) => { reply.send('sent'); accept(reply) }),
    wanted: { status: 200, body: 'sent' }
  },
  {
    title: 'a handler stages three jobs',
    route: (app, accept) => app.get('/', async (_, reply) => { for (let n = 0; n < 3; n++) accept(reply); return 'sent' }),
    jobs: 3,
    wanted: { status: 200, body: 'sent' }
  },
  {
    title: 'a body was posted',
    route: (app, accept) => app.post('/', async (request, reply) => { accept(reply); return request.body }),
    ask: { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"a":1}' },
    wanted: { status: 200, body: '{"a":1}' }
  },
  {
    title: 'HEAD is asked',
    route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); return 'unseen' }),
    ask: { method: 'HEAD' },
    wanted: { status: 200, body: '' }
  },
  {
    title: 'the answer is 204',
    route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); return reply.code(204).send() }),
    wanted: { status: 204, body: '' }
  },
  {
    title: 'the answer is 304',
    route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); return reply.code(304).send() }),
    wanted: { status: 304, body: '' }
  },
  {
    title: 'the answer is a redirect',
    route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); return reply.redirect('/elsewhere') }),
    wanted: { status: 302, body: '' }
  },
  {
    title: 'the answer has trailers',
    route: (app, accept) => app.get('/', async (_, reply) => {
      accept(reply)
      return reply.trailer('server-timing', async () => 'db;dur=1').send('sent')
    }),
    wanted: { status: 200, body: 'sent' }
  },
  {
    title: 'the reply is hijacked and ended by hand',
    route: (app, accept) => app.get('/', async (_, reply) => {
      accept(reply)
      reply.hijack()
      reply.raw.writeHead(202)
      reply.raw.end('by hand')
    }),
    wanted: { status: 202, body: 'by hand' }
  },
  {
    title: 'the 404 handler stages the job',
    route: (app, accept) => app.setNotFoundHandler(async (_, reply) => { accept(reply); return reply.code(404).send('not here') }),
    wanted: { status: 404, body: 'not here' }
  },
  {
    title: 'the handler calls callNotFound',
    route: (app, accept) => {
      app.setNotFoundHandler(async (_, reply) => reply.code(404).send('not here'))
      app.get('/', (_, reply) => { accept(reply); reply.callNotFound() })
    },
    wanted: { status: 404, body: 'not here' }
  }
]

const streams: Ending[] = [
  {
    title: 'a stream is sent',
    route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); return Readable.from(['one ', 'two']) }),
    wanted: { status: 200, body: 'one two' }
  },
  {
    title: 'an empty stream is sent',
    route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); return Readable.from([]) }),
    wanted: { status: 200, body: '' }
  },
  {
    title: 'a web stream is sent',
    route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); return reply.send(webStream(['one ', 'two'])) }),
    wanted: { status: 200, body: 'one two' }
  },
  {
    title: 'a Response is sent',
    route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); return new Response('made', { status: 201 }) }),
    wanted: { status: 201, body: 'made' }
  },
  {
    title: 'a stream fails before its first byte',
    route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); return failing([]) }),
    wanted: { status: 500 }
  },
  {
    title: 'a stream fails in mid-stream',
    route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); return failing(['one ']) }),
    wanted: { status: 200, body: 'one ' }
  },
  {
    title: 'a web stream fails in mid-stream',
    route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); return reply.send(webStream(['one '], broken)) }),
    wanted: { status: 200, body: 'one ' }
  },
  {
    title: 'a hijacked response is destroyed',
    route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); reply.hijack(); reply.raw.destroy() }),
    wanted: { status: 0, broken: true }
  }
]

const errors: Ending[] = [
  {
    title: 'an async handler throws',
    route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); throw broken }),
    wanted: { status: 500 }
  },
  {
    title: 'a sync handler throws',
    route: (app, accept) => app.get('/', (_, reply) => { accept(reply); throw broken }),
    wanted: { status: 500 }
  },
  {
    title: 'a handler sends an error',
    route: (app, accept) => app.get('/', (_, reply) => { accept(reply); reply.send(broken) }),
    wanted: { status: 500 }
  },
  {
    title: 'a custom error handler turns the error into a 200',
    route: (app, accept) => {
      app.setErrorHandler(async (_error, _request, reply) => reply.code(200).send('never mind'))
      app.get('/', async (_, reply) => { accept(reply); throw broken })
    },
    wanted: { status: 200, body: 'never mind' }
  },
  {
    title: 'a custom error handler stages the job',
    route: (app, accept) => {
      app.setErrorHandler(async (_error, _request, reply) => { accept(reply); return reply.code(418).send('sorry') })
      app.get('/', async () => { throw broken })
    },
    wanted: { status: 418, body: 'sorry' }
  },
  {
    title: 'the error handler throws too',
    route: (app, accept) => {
      app.setErrorHandler(async () => { throw new Error('me too') })
      app.get('/', async (_, reply) => { accept(reply); throw broken })
    },
    wanted: { status: 500 }
  },
  {
    title: 'a handler answers twice',
    route: (app, accept) => app.get('/', (_, reply) => { accept(reply); reply.send('first'); reply.send('second') }),
    wanted: { status: 200, body: 'first' }
  },
  {
    title: 'an async handler returns a value after sending another',
    route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); reply.send('first'); await settle(); return 'second' }),
    wanted: { status: 200, body: 'first' }
  },
  {
    title: 'a handler throws after sending',
    route: (app, accept) => app.get('/', async (_, reply) => { accept(reply); reply.send('sent'); throw broken }),
    wanted: { status: 200, body: 'sent' }
  },
  {
    title: 'a sync handler throws after sending',
    route: (app, accept) => app.get('/', (_, reply) => { accept(reply); reply.send('sent'); throw broken }),
    wanted: { status: 200, body: 'sent' }
  },
  {
    title: 'the answer cannot be serialized',
    route: (app, accept) => {
      const schema = { response: { 200: { type: 'object', required: ['a'], properties: { a: { type: 'string' } } } } }
      app.get('/', { schema }, async (_, reply) => { accept(reply); return {} })
    },
    wanted: { status: 500 }
  },
  {
    title: 'the posted body is refused',
    route: (app, accept) => {
      app.addHook('onRequest', async (_, reply) => { accept(reply) })
      app.post('/', async () => 'never')
    },
    ask: { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"a":' },
    wanted: { status: 400 }
  }
]

/** Some text, then its end or an error. */
function webStream (text: string[], error?: Error): ReadableStream {
  const chunks = [...text]
  return new ReadableStream({
    async pull (controller) {
      const chunk = chunks.shift()
      if (chunk !== undefined) return controller.enqueue(new TextEncoder().encode(chunk))
      await settle()
      if (error === undefined) controller.close()
      else controller.error(error)
    }
  })
}

async function askOnce (site: Site, ending: Ending, before: number): Promise<Answer> {
  const answer = await site.ask('/', ending.ask)
  await site.ledger.accepted(before + (ending.jobs ?? 1))
  await Promise.all(site.ledger.entries.map((entry) => entry.end.promise))
  await settle()
  return answer
}

for (const protocol of protocols) {
  for (const ending of [...plain, ...streams, ...errors]) {
    t.test(`a job starts once and after the response when ${ending.title}, over ${protocol}`, async (t) => {
      const jobs = ending.jobs ?? 1
      const made = await site(t, ({ app, ledger }) => ending.route(app, (reply) => { ledger.accept(reply, { when: 'always' }) }), { protocol })
      const { ledger } = made
      ledger.control = true
      await askOnce(made, ending, 0)
      const bare = leftOn(ledger.entries[0]!.raw)
      ledger.control = false
      ledger.entries.length = 0
      t.match(await askOnce(made, ending, 0), ending.wanted, 'the client has its answer')
      await made.check(t, jobs)
      t.same(leftOn(ledger.entries[0]!.raw), bare, 'as many listeners as without the job')
    })
  }
}
