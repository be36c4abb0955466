/** Staged jobs on a durable backend: written before the response goes out, released after it. */
import '../support/watched.ts'
import { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import t from 'tap'
import { memory, type BackgroundTasksOptions, type JobHandle, type JobOptions } from '../../lib/index.ts'
import { TestClock } from '../support/clock.ts'
import { DurableBackend } from '../support/durable.ts'
import { deferred, setup, until, type HarnessOptions } from '../support/harness.ts'
import { open, site, type Site } from '../support/http.ts'

interface Place {
  made: Site
  backend: DurableBackend
  /** The tasks that ran. */
  ran: string[]
  health: () => Promise<{ status: string, incidents: { unstored: number }, totals: { cancelled: number } }>
}

const TASKS = ['a', 'b', 'c']
const down = new Error('disk full at /var/lib/secret.db')

/** A site with the tasks a, b and c on a durable backend. */
async function place (t: Parameters<typeof site>[0], routes: (made: Site) => unknown, plugin: BackgroundTasksOptions = {}, more: Parameters<typeof site>[2] = {}): Promise<Place> {
  const backend = new DurableBackend()
  const ran: string[] = []
  const made = await site(t, (made) => {
    for (const name of TASKS) made.app.background.define(name, () => { ran.push(name) })
    return routes(made)
  }, { ...more, plugin: { backend, ...plugin } })
  const health = async (): Promise<Awaited<ReturnType<Place['health']>>> => JSON.parse((await made.ask('/health/jobs')).body) as Awaited<ReturnType<Place['health']>>
  return { made, backend, ran, health }
}

const idle = async ({ made }: Place): Promise<void> => made.app.background.onIdle({ timeout: 20_000 })

// The good way

t.test('a job is written as pending before the response goes out, and released after it', async (t) => {
  const p = await place(t, ({ app }) => {
    app.addHook('onResponse', async () => { p.backend.calls.push('response over') })
    app.get('/', async (_request, reply) => reply.accepted('a', null))
  })
  const release = p.backend.hold()
  const exchange = await open(p.made, '/')
  await until(() => p.backend.calls.length > 0)
  let answered = false
  const answer = exchange.answer().finally(() => { answered = true })
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => { setImmediate(resolve) })
  t.equal(answered, false, 'the answer waits for the write')
  release()
  const { status, headers, body } = await answer
  t.equal(status, 202)
  t.match(headers['location'], /^\/jobs\/.*\/status$/)
  t.match(JSON.parse(body), { state: 'pending', name: 'a' })
  await idle(p)
  t.strictSame(p.ran, ['a'])
  t.strictSame(p.backend.calls, ['enqueue pending a', 'stored', 'response over', 'release a', 'settle a completed'])
})

t.test('several jobs of one reply are written in one call', async (t) => {
  const p = await place(t, ({ app }) => {
    app.get('/', async (_request, reply) => {
      for (const name of TASKS) reply.background(name)
      return 'ok'
    })
  })
  t.equal((await p.made.ask('/')).body, 'ok')
  await idle(p)
  t.equal(p.backend.calls[0], 'enqueue pending a, b, c')
  t.strictSame(p.ran.toSorted(), TASKS)
})

t.test('a reply without durable jobs touches no store', async (t) => {
  const p = await place(t, ({ app }) => { app.get('/', async () => 'ok') })
  t.equal((await p.made.ask('/')).status, 200)
  t.strictSame(p.backend.calls, [])
})

t.test('no hook of every route exists while every backend lives in memory', async (t) => {
  const count = async (backend: BackgroundTasksOptions['backend']): Promise<number> => {
    let sends = 0
    const before: HarnessOptions['before'] = (app) => {
      const addHook = app.addHook.bind(app) as (name: string, hook: unknown) => typeof app
      Object.assign(app, { addHook (name: string, hook: unknown) {
        if (name === 'onSend') sends++
        return addHook(name, hook)
      } })
    }
    const { app } = await setup(t, { backend, before })
    await app.ready()
    return sends
  }
  t.equal(await count(memory({ clock: new TestClock() })), 0)
  t.equal(await count(new DurableBackend({ clock: new TestClock() })), 1)
})

// when

const ends: Record<string, { answer: (reply: FastifyReply) => unknown, accepts: string[] }> = {
  'a 200': { answer: () => 'ok', accepts: ['handled', 'success', 'always'] },
  'a 404 by choice': { answer: (reply) => reply.code(404).send('no'), accepts: ['handled', 'always'] },
  'a 404 by a web Response': { answer: (reply) => reply.send(new Response('no', { status: 404 })), accepts: ['handled', 'always'] },
  'a throw': { answer: () => { throw new Error('broken') }, accepts: ['error', 'always'] }
}
for (const [title, { answer, accepts }] of Object.entries(ends)) {
  t.test(`${title}: \`when\` is judged before anything is written`, async (t) => {
    const p = await place(t, ({ app }) => {
      for (const when of ['handled', 'success', 'error', 'always'] as const) app.background.define(when, () => { p.ran.push(when) })
      app.get('/', async (_request, reply) => {
        for (const when of ['handled', 'success', 'error', 'always'] as const) reply.background(when, null, { when })
        return answer(reply)
      })
    })
    await p.made.ask('/')
    await idle(p)
    t.equal(p.backend.calls[0], `enqueue pending ${accepts.join(', ')}`)
    t.strictSame(p.ran.toSorted(), accepts.toSorted())
    t.equal((await p.health()).totals.cancelled, 4 - accepts.length)
    t.strictSame(p.made.logged('job cancelled').map((line) => line['reason']), Array.from({ length: 4 - accepts.length }, () => 'response'))
  })
}

t.test('a function as `when` is asked once, with status and error', async (t) => {
  const asked: unknown[] = []
  const p = await place(t, ({ app }) => {
    app.get('/', async (_request, reply) => {
      reply.background('a', null, { when: (outcome) => asked.push(outcome) > 0 })
      return reply.code(201).send('made')
    })
  })
  await p.made.ask('/')
  await idle(p)
  t.strictSame(asked, [{ statusCode: 201, error: undefined, aborted: false }])
  t.strictSame(p.ran, ['a'])
})

t.test('a job that was written is cancelled when a later hook turns the answer into an error', async (t) => {
  let job: JobHandle | undefined
  const p = await place(t, ({ app }) => {
    app.get('/', { onSend: async (_request, reply) => { if (reply.statusCode === 200) throw new Error('too late') } }, async (_request, reply) => {
      job = reply.background('a')
      reply.background('b', null, { when: 'error' })
      return 'ok'
    })
  })
  t.equal((await p.made.ask('/')).status, 500)
  await idle(p)
  t.strictSame(p.ran, ['b'])
  t.strictSame(p.backend.calls.slice(0, 4), ['enqueue pending a', 'stored', 'enqueue pending b', 'stored'])
  await until(async () => (await p.made.app.background.get(job?.id ?? ''))?.state === 'cancelled')
})

t.test('accepted rejects for a job that `when` refused', async (t) => {
  const seen = deferred<unknown>()
  const p = await place(t, ({ app }) => {
    app.get('/', async (_request, reply) => {
      reply.background('a', null, { when: 'error' }).accepted.catch(seen.resolve)
      return 'ok'
    })
  })
  await p.made.ask('/')
  t.match(await seen.promise, { code: 'FST_BG_JOB_CANCELLED' })
  t.strictSame(p.backend.calls, [])
})

// The store fails

t.test('a reply below 400 becomes a 503 with a fixed text, without our Location, and nothing runs', async (t) => {
  let inline = 0
  const p = await place(t, ({ app }) => {
    app.get('/', async (_request, reply) => {
      reply.background(() => { inline++ })
      reply.background('b')
      reply.header('etag', '"x"')
      return reply.accepted('a', null)
    })
  })
  p.backend.failure = down
  const { status, headers, body } = await p.made.ask('/')
  t.equal(status, 503)
  t.strictSame(JSON.parse(body), {
    statusCode: 503, code: 'FST_BG_STORE_UNAVAILABLE', error: 'Service Unavailable', message: 'the store of the background jobs cannot take jobs now'
  })
  t.notOk('location' in headers || 'etag' in headers)
  t.equal(headers['retry-after'], '1')
  await idle(p)
  t.equal(inline, 0, 'an inline function of the reply does not run either')
  t.strictSame(p.ran, [])
  t.match(await p.health(), { status: 'degraded', incidents: { unstored: 2 } })
  t.equal(p.made.logged('jobs refused: their store cannot take them').length, 1)
  p.backend.failure = undefined
  t.equal((await p.made.ask('/')).status, 202, 'it recovers when the store does')
  t.equal((await p.health()).status, 'ok')
})

t.test('a Location that is not ours stays', async (t) => {
  const p = await place(t, ({ app }) => {
    app.post('/', async (_request, reply) => {
      reply.background('a')
      return reply.code(201).header('location', '/users/1').send({ id: 1 })
    })
  })
  p.backend.failure = down
  const { status, headers } = await p.made.ask('/', { method: 'POST' })
  t.equal(status, 503)
  t.equal(headers['location'], '/users/1')
})

t.test('a body that is a stream is let go when the answer becomes a 503', async (t) => {
  const body = new Readable({ read () { this.push('never sent') } })
  const p = await place(t, ({ app }) => {
    app.get('/', async (_request, reply) => {
      reply.background('a')
      return reply.type('text/plain').send(body)
    })
  })
  p.backend.failure = down
  t.equal((await p.made.ask('/')).status, 503)
  t.equal(body.destroyed, true)
})

t.test('the application\'s error handler sees the error, as it sees any other', async (t) => {
  const p = await place(t, ({ app }) => {
    app.setErrorHandler(async (error: { code?: string }, _request, reply) => reply.code(503).send({ own: error.code }))
    app.get('/', async (_request, reply) => reply.accepted('a', null))
  })
  p.backend.failure = down
  const { status, body } = await p.made.ask('/')
  t.equal(status, 503)
  t.strictSame(JSON.parse(body), { own: 'FST_BG_STORE_UNAVAILABLE' })
})

t.test('a reply of 400 and above stays, and the loss is logged and counted', async (t) => {
  const p = await place(t, ({ app }) => {
    app.get('/', async (_request, reply) => {
      reply.background('a')
      return reply.code(418).send('teapot')
    })
  })
  p.backend.failure = down
  const { status, body } = await p.made.ask('/')
  t.strictSame([status, body], [418, 'teapot'])
  t.equal((await p.health()).incidents.unstored, 1)
  t.match(p.made.log.filter(({ msg }) => String(msg).startsWith('jobs lost')), [{ level: 50, task: 'a', err: { message: down.message } }])
})

t.test('all or none also where the queues of one reply stand on several stores', async (t) => {
  const other = new DurableBackend({ name: 'other' })
  const p = await place(t, ({ app }) => {
    app.background.define('far', { queue: 'far' }, () => { p.ran.push('far') })
    app.get('/', async (_request, reply) => {
      reply.background('a')
      reply.background('far')
      return 'ok'
    })
  }, { queues: { far: { backend: other } } })
  other.failure = down
  t.equal((await p.made.ask('/')).status, 503)
  await idle(p)
  t.strictSame(p.ran, [])
  other.failure = undefined
  t.equal((await p.made.ask('/')).status, 200)
  await idle(p)
  t.strictSame(p.ran.toSorted(), ['a', 'far'])
})

// Where no answer can wait

const unheard: Record<string, (reply: FastifyReply, stage: () => void) => unknown> = {
  'before the hijack': (reply, stage) => {
    stage()
    reply.hijack()
    setImmediate(() => { reply.raw.end('raw') })
  },
  'after the hijack': (reply, stage) => {
    reply.hijack()
    stage()
    setImmediate(() => { reply.raw.end('raw') })
  },
  'after the headers': (reply, stage) => {
    reply.hijack()
    reply.raw.writeHead(200)
    stage()
    reply.raw.end('raw')
  }
}
for (const [title, answer] of Object.entries(unheard)) {
  t.test(`staged ${title}, a job is written at once and released at the end; a failure is logged and counted`, async (t) => {
    let job: JobHandle | undefined
    const p = await place(t, ({ app }) => {
      app.get('/', (_request, reply) => {
        answer(reply, () => { job = reply.background('a') })
      })
    })
    t.equal((await p.made.ask('/')).body, 'raw')
    await job?.accepted
    await idle(p)
    t.strictSame(p.ran, ['a'])
    t.equal(p.backend.calls[0], 'enqueue pending a')
    p.backend.failure = down
    t.equal((await p.made.ask('/')).status, 200)
    await t.rejects(job?.accepted ?? Promise.resolve(), { code: 'FST_BG_STORE_UNAVAILABLE' })
    t.equal((await p.health()).incidents.unstored, 1)
    t.equal(p.made.log.filter(({ msg }) => String(msg).startsWith('jobs lost')).length, 1)
  })
}

t.test('the release waits for a write that is still under way', async (t) => {
  const p = await place(t, ({ app }) => {
    app.get('/', (_request, reply) => {
      reply.hijack()
      reply.background('a')
      reply.raw.end('raw')
    })
  })
  const release = p.backend.hold()
  t.equal((await p.made.ask('/')).body, 'raw')
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => { setImmediate(resolve) })
  t.strictSame(p.backend.calls, ['enqueue pending a'])
  release()
  await until(() => p.ran.length > 0)
  await idle(p)
  t.strictSame(p.backend.calls, ['enqueue pending a', 'stored', 'release a', 'settle a completed'])
})

for (const onAbort of ['run', 'drop'] as const) {
  t.test(`a client that leaves before the answer: the handler's end is written, then onAbort: '${onAbort}'`, async (t) => {
    const [called, go] = [deferred(), deferred()]
    const p = await place(t, ({ app }) => {
      app.get('/', async (request, reply) => {
        reply.background('a', null, { onAbort })
        const closed = new Promise((resolve) => { request.raw.socket.once('close', resolve) })
        called.resolve()
        await closed
        reply.background('b', null, { onAbort })
        await go.promise
        return 'unheard'
      })
    })
    const exchange = await open(p.made, '/')
    await called.promise
    exchange.leave()
    await until(() => p.backend.calls.includes('stored'))
    t.strictSame(p.backend.calls, ['enqueue pending b', 'stored'], 'what is staged after the client left is written at once')
    go.resolve()
    await until(() => p.backend.calls.filter((call) => call === 'stored').length === 2)
    await idle(p)
    t.equal(p.backend.calls[2], 'enqueue pending a')
    t.strictSame(p.ran.toSorted(), onAbort === 'run' ? ['a', 'b'] : [])
    t.equal(p.backend.calls.filter((call) => call.endsWith('client-abort')).length, onAbort === 'run' ? 0 : 2)
  })
}

t.test('a response that ends without onSend writes its jobs then', async (t) => {
  const p = await place(t, ({ app }) => {
    app.get('/', (_request, reply) => {
      reply.background('a')
      reply.background('b', null, { when: 'error' })
      reply.raw.end('by hand')
    })
  })
  t.equal((await p.made.ask('/')).body, 'by hand')
  await until(() => p.ran.length > 0)
  t.strictSame(p.ran, ['a'])
  t.equal(p.backend.calls[0], 'enqueue a')
})

t.test('a job staged when the response is over is written and starts', async (t) => {
  const p = await place(t, ({ app }) => {
    app.addHook('onResponse', async (request, reply) => { if (request.url === '/') reply.background('a') })
    app.get('/', async () => 'ok')
  })
  await p.made.ask('/')
  await until(() => p.ran.length > 0)
  t.strictSame(p.ran, ['a'])
})

// The rest of the door

t.test('inline functions stay in memory on every queue, and health sums both', async (t) => {
  const go = deferred()
  const p = await place(t, ({ app }) => {
    app.background.define('wait', () => go.promise)
    app.get('/', async (_request, reply) => {
      reply.background(() => go.promise)
      reply.background('wait')
      return 'ok'
    })
  })
  await p.made.ask('/')
  await until(async () => (await p.made.app.background.counts())['default']?.active === 2)
  t.match(await p.health(), { backend: { name: 'durable', durable: true }, queues: { default: { active: 2 } } })
  t.equal(p.backend.calls[0], 'enqueue pending wait')
  go.resolve()
  await idle(p)
})

t.test('add and addBulk reject when the store fails, and Prefer answers 503', async (t) => {
  const p = await place(t, ({ app }) => {
    app.get('/', async (_request, reply) => reply.accepted('a', null))
  }, { maxWait: 1_000 })
  const { background } = p.made.app
  p.backend.failure = down
  await t.rejects(background.add('a'), { code: 'FST_BG_STORE_UNAVAILABLE', statusCode: 503 })
  await t.rejects(background.addBulk([{ name: 'a' }, { name: 'b' }]), { code: 'FST_BG_STORE_UNAVAILABLE' })
  t.equal((await p.made.ask('/', { headers: { prefer: 'wait=1' } })).status, 503)
  t.equal((await p.health()).incidents.unstored, 4)
  p.backend.failure = undefined
  t.equal((await p.made.ask('/', { headers: { prefer: 'wait=1' } })).status, 200)
  t.strictSame(p.ran, ['a'])
})

t.test('a job that is not written yet can be cancelled, and one that is being written too', async (t) => {
  const answers: unknown[] = []
  let job!: JobHandle
  const p = await place(t, ({ app }) => {
    app.get('/', async (_request, reply) => {
      job = reply.background('a')
      reply.background('b')
      answers.push(await app.background.cancel(job.id), await app.background.cancel(job.id))
      return 'ok'
    })
    app.get('/later', async (_request, reply) => {
      job = reply.background('c')
      return 'ok'
    })
  })
  const { background } = p.made.app
  t.equal((await p.made.ask('/')).status, 200)
  await t.rejects(job.accepted, { code: 'FST_BG_JOB_CANCELLED' })
  const release = p.backend.hold()
  const asking = p.made.ask('/later')
  await until(() => p.backend.calls.includes('enqueue pending c'))
  const cancelling = background.cancel(job.id)
  release()
  answers.push(await cancelling)
  await asking
  await idle(p)
  t.strictSame(answers, ['cancelled', undefined, 'cancelled'])
  t.strictSame(p.ran, ['b'])
  t.equal((await p.health()).totals.cancelled, 2)
})

t.test('finished() of a job whose response is open would wait for itself', async (t) => {
  const codes: unknown[] = []
  const p = await place(t, ({ app }) => {
    app.get('/', async (_request, reply) => {
      await reply.background('a').finished().catch((error: { code: string }) => codes.push(error.code))
      return 'ok'
    })
  })
  await p.made.ask('/')
  t.strictSame(codes, ['FST_BG_WOULD_DEADLOCK'])
  await idle(p)
})

t.test('callerContext is refused by name at the call', async (t) => {
  const p = await place(t, () => {})
  const options: JobOptions = { callerContext: true }
  await t.rejects(p.made.app.background.add('a', null, options), { code: 'FST_BG_NOT_SUPPORTED', message: /callerContext.*durable/ })
  await t.resolves(p.made.app.background.add(() => {}, options))
  await idle(p)
})
