/** Which ends of a response let a job start: `when` and `onAbort`, what becomes of the others, and what is said of it. */
import { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import t from 'tap'
import type { JobOptions, ResponseOutcome } from '../../../lib/index.ts'
import { deferred } from '../../support/harness.ts'
import { open, site, type Site } from '../../support/http.ts'
import { settle } from '../../support/ledger.ts'


const broken = new Error('broken on purpose')

interface End {
  path: string
  what: string
  accepts: Record<'handled' | 'success' | 'error' | 'always', boolean>
  outcome: ResponseOutcome
}

const ends: End[] = [
  {
    path: '/ok',
    what: 'the handler answered 200',
    accepts: { handled: true, success: true, error: false, always: true },
    outcome: { statusCode: 200, error: undefined, aborted: false }
  },
  {
    path: '/redirect',
    what: 'the handler redirected',
    accepts: { handled: true, success: true, error: false, always: true },
    outcome: { statusCode: 302, error: undefined, aborted: false }
  },
  {
    path: '/400',
    what: 'the handler chose a 400',
    accepts: { handled: true, success: false, error: false, always: true },
    outcome: { statusCode: 400, error: undefined, aborted: false }
  },
  {
    path: '/503',
    what: 'the handler chose a 503',
    accepts: { handled: true, success: false, error: false, always: true },
    outcome: { statusCode: 503, error: undefined, aborted: false }
  },
  {
    path: '/thrown',
    what: 'the handler threw',
    accepts: { handled: false, success: false, error: true, always: true },
    outcome: { statusCode: 500, error: broken, aborted: false }
  },
  {
    path: '/sent',
    what: 'the handler sent an error',
    accepts: { handled: false, success: false, error: true, always: true },
    outcome: { statusCode: 500, error: broken, aborted: false }
  },
  {
    path: '/turned/thrown',
    what: 'an error was turned into a 200',
    accepts: { handled: false, success: false, error: true, always: true },
    outcome: { statusCode: 200, error: broken, aborted: false }
  },
  {
    path: '/after',
    what: 'the handler threw after sending',
    accepts: { handled: true, success: true, error: false, always: true },
    outcome: { statusCode: 200, error: undefined, aborted: false }
  },
  {
    path: '/hook',
    what: 'a hook threw before the reply',
    accepts: { handled: false, success: false, error: true, always: true },
    outcome: { statusCode: 500, error: broken, aborted: false }
  },
  {
    path: '/hijacked',
    what: 'the reply was hijacked and ended with a 404',
    accepts: { handled: true, success: false, error: false, always: true },
    outcome: { statusCode: 404, error: undefined, aborted: false }
  },
  {
    path: '/stream',
    what: 'a stream failed in mid-stream',
    accepts: { handled: true, success: true, error: false, always: true },
    outcome: { statusCode: 200, error: undefined, aborted: true }
  },
  {
    path: '/unbegun',
    what: 'a stream failed before its first byte',
    accepts: { handled: false, success: false, error: true, always: true },
    outcome: { statusCode: 500, error: broken, aborted: false }
  }
]

/** All these ends, and a job staged at the beginning of each. */
async function siteOfEnds (t: any, options: JobOptions): Promise<Site> {
  return site(t, ({ app, ledger }) => {
    app.addHook('onRequest', async (_, reply) => { ledger.accept(reply, options) })
    app.get('/ok', async () => 'ok')
    app.get('/redirect', async (_, reply) => reply.redirect('/ok'))
    app.get('/400', async (_, reply) => reply.code(400).send('no'))
    app.get('/503', async (_, reply) => reply.code(503).send('no'))
    app.get('/thrown', async () => { throw broken })
    app.get('/sent', (_, reply) => { reply.send(broken) })
    app.get('/after', async (_, reply) => { reply.send('ok'); throw broken })
    app.get('/hook', { preHandler: async () => { throw broken } }, async () => 'never')
    app.get('/hijacked', async (_, reply) => { reply.hijack(); reply.raw.writeHead(404); reply.raw.end() })
    app.get('/stream', async () => Readable.from((async function * () { yield 'begun'; await settle(); throw broken })()))
    app.get('/unbegun', async () => new Readable({ read () { this.destroy(broken) } }))
    app.register(async (child) => {
      child.setErrorHandler(async (_error, _request, reply) => reply.code(200).send('never mind'))
      child.get('/thrown', async () => { throw broken })
    }, { prefix: '/turned' })
  })
}

for (const { path, what, accepts, outcome } of ends) {
  for (const [when, accepted] of Object.entries(accepts) as Array<['handled', boolean]>) {
    t.test(`'${when}' ${accepted ? 'lets a job start' : 'cancels a job'} when ${what}`, async (t) => {
      const made = await siteOfEnds(t, { when })
      await made.ask(path)
      await made.check(t, 1, accepted ? 0 : 1)
      const job = await made.job()
      t.equal(job.state, accepted ? 'completed' : 'cancelled')
      t.equal(job.reason, accepted ? undefined : 'response')
      t.equal(job.attemptsMade, accepted ? 1 : 0)
      const said = made.logged('job cancelled').map(({ jobId, reason, reqId }) => ({ jobId, reason, reqId }))
      t.same(said, accepted ? [] : [{ jobId: job.id, reason: 'response', reqId: job.requestId }])
    })
  }

  t.test(`a function is asked once, with how it ended, when ${what}`, async (t) => {
    const asked: ResponseOutcome[] = []
    const made = await siteOfEnds(t, { when: (given) => { asked.push(given); return true } })
    await made.ask(path)
    await made.check(t)
    t.equal(asked.length, 1)
    t.match(asked[0], { statusCode: outcome.statusCode, aborted: outcome.aborted })
    t.equal(asked[0]?.error, outcome.error)
  })
}

for (const [what, answer] of [['false', false], ['undefined', undefined], ['a truthy value that is not true', 1], ['a promise', Promise.resolve(true)]] as const) {
  t.test(`a function that answers ${what} cancels its job`, async (t) => {
    const made = await siteOfEnds(t, { when: () => answer as boolean })
    await made.ask('/ok')
    await made.check(t, 1, 1)
    t.match(await made.job(), { state: 'cancelled', reason: 'response' })
  })
}

for (const [what, thrown] of [['an error', broken], ['undefined', undefined], ['a frozen thing', Object.freeze(Object.create(null))]] as const) {
  t.test(`a function that throws ${what} cancels its job and is logged`, async (t) => {
    const made = await siteOfEnds(t, { when: () => { throw thrown } })
    await made.ask('/ok')
    await made.check(t, 1, 1)
    const job = await made.job()
    t.match(job, { state: 'cancelled', reason: 'response' })
    t.match(made.logged('when failed'), [{ level: 50, option: 'when', jobId: job.id, err: { message: String } }])
  })
}

t.test('a function is not asked again when its reply stages another job later', async (t) => {
  let asked = 0
  const made = await site(t, ({ app, ledger }) => {
    app.addHook('onResponse', async (_, reply) => {
      while (ledger.entries[0]?.runs === 0) await settle()
      ledger.accept(reply)
    })
    app.get('/', async (_, reply) => { ledger.accept(reply, { when: () => ++asked > 0 }); return 'ok' })
  })
  await made.ask('/')
  await made.check(t, 2)
  t.equal(asked, 1)
})

t.test('a function cannot change what the next one sees', async (t) => {
  const seen: number[] = []
  const when = (outcome: ResponseOutcome): boolean => { seen.push(outcome.statusCode); outcome.statusCode = 0; return true }
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', async (_, reply) => { ledger.accept(reply, { when }); ledger.accept(reply, { when }); return 'ok' })
  })
  await made.ask('/')
  await made.check(t, 2)
  t.same(seen, [200, 200])
})

t.test('jobs of one response are judged each by its own', async (t) => {
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', async (_, reply) => {
      for (const when of ['handled', 'success', 'error', 'always'] as const) ledger.accept(reply, { when }, when)
      return reply.code(400).send('no')
    })
  })
  await made.ask('/')
  await made.check(t, 4, 2)
  t.same(made.ledger.events, ['handled', 'always'])
})

t.test('a job that was cancelled by hand does not start when its response is over', async (t) => {
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', async (_, reply) => {
      const handle = ledger.accept(reply)
      return app.background.cancel(handle?.id ?? '')
    })
  })
  t.equal((await made.ask('/')).body, 'cancelled')
  await made.check(t, 1, 1)
  t.match(await made.job(), { state: 'cancelled', reason: 'user' })
})

interface Leaving {
  what: string
  answer: (reply: FastifyReply) => unknown
  /** The client leaves when the first byte has come, or at once. */
  inBody: boolean
  job: { run: object, drop: object }
}

const completed = { state: 'completed' }
const dropped = { state: 'cancelled', reason: 'client-abort', attemptsMade: 0 }
const refused = { state: 'cancelled', reason: 'response', attemptsMade: 0 }

const leavings: Leaving[] = [
  { what: 'before the headers, and the handler answers', inBody: false, answer: () => 'unheard', job: { run: completed, drop: dropped } },
  { what: 'before the headers, and the handler answers a 500', inBody: false, answer: (reply) => reply.code(500).send(), job: { run: completed, drop: dropped } },
  { what: 'before the headers, and the handler throws', inBody: false, answer: () => { throw broken }, job: { run: refused, drop: refused } },
  { what: 'in mid-stream', inBody: true, answer: (reply) => reply.send(new Readable({ read () { setImmediate(() => { this.push('more') }) } })), job: { run: completed, drop: dropped } }
]

for (const { what, answer, inBody, job } of leavings) {
  for (const onAbort of ['run', 'drop'] as const) {
    t.test(`onAbort '${onAbort}' when the client leaves ${what}`, async (t) => {
      const gate = deferred()
      const made = await site(t, ({ app, ledger }) => {
        app.get('/', async (_, reply) => {
          ledger.accept(reply, { onAbort })
          if (!inBody) await gate.promise
          return answer(reply)
        })
      })
      const exchange = await open(made, '/')
      if (inBody) (await exchange.response()).body.once('data', () => { exchange.leave() }).on('error', () => {})
      else {
        await made.ledger.accepted(1)
        exchange.leave()
      }
      await made.ledger.accepted(1)
      await made.ledger.entries[0]!.end.promise
      gate.resolve()
      await made.check(t, 1, job[onAbort] === completed ? 0 : 1)
      t.match(await made.job(), job[onAbort])
      t.equal(made.logged('job cancelled').length, job[onAbort] === completed ? 0 : 1)
    })
  }
}

t.test("onAbort 'drop' changes nothing for a client that stays", async (t) => {
  const made = await siteOfEnds(t, { onAbort: 'drop' })
  await made.ask('/ok')
  await made.check(t)
})

t.test("onAbort 'drop' drops a job whose stream failed on the server", async (t) => {
  const made = await siteOfEnds(t, { onAbort: 'drop' })
  await made.ask('/stream')
  await made.check(t, 1, 1)
  t.match(await made.job(), dropped)
})

t.test('a task may say when its jobs start, and a call has the last word', async (t) => {
  const made = await site(t, ({ app }) => {
    const task = app.background.define('after-errors', { when: 'error' }, async () => {})
    app.get('/', async (_, reply) => [reply.background(task).id, reply.background(task, null, { when: 'always' }).id])
  })
  const ids = JSON.parse((await made.ask('/')).body) as string[]
  await made.app.background.onIdle()
  const states = await Promise.all(ids.map(async (id) => (await made.app.background.get(id))?.state))
  t.same(states, ['cancelled', 'completed'])
})
