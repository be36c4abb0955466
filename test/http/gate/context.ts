/** What `reply.background` leaves alone, what a job sees of its request, and what is kept of it. */
import { AsyncLocalStorage } from 'node:async_hooks'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { FastifyReply } from 'fastify'
import t from 'tap'
import { deferred } from '../../support/harness.ts'
import { protocols, site, Wire } from '../../support/http.ts'
import { settle } from '../../support/ledger.ts'


for (const code of [200, 201, 202, 301, 404, 500]) {
  t.test(`the status code ${code} stays what the handler chose, before and after the call`, async (t) => {
    const made = await site(t, ({ app, ledger }) => {
      app.get('/before', async (_, reply) => { reply.code(code); ledger.accept(reply); return 'sent' })
      app.get('/after', async (_, reply) => { ledger.accept(reply); return reply.code(code).send('sent') })
    })
    t.match(await made.ask('/before'), { status: code, body: 'sent' })
    t.match(await made.ask('/after'), { status: code, body: 'sent' })
    await made.check(t, 2)
  })
}

t.test('the answer is the same, byte for byte, with a job and without', async (t) => {
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', async (_, reply) => { ledger.accept(reply); return reply.header('date', 'today').send({ a: 1 }) })
  })
  const answers: string[] = []
  for (const control of [true, false]) {
    made.ledger.control = control
    const wire = new Wire(t, made)
    wire.send('/')
    await wire.until('}')
    answers.push(wire.received)
  }
  t.equal(answers[0], answers[1])
})

t.test('a reply can stage a job long after its response is over', async (t) => {
  let kept: FastifyReply | undefined
  const made = await site(t, ({ app }) => { app.get('/', async (_, reply) => { kept = reply; return 'sent' }) })
  await made.ask('/')
  await settle(50)
  made.ledger.accept(kept as FastifyReply)
  await made.check(t)
})

t.test('a reply can stage a job from the job that it staged', async (t) => {
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', async (_, reply) => {
      reply.background(() => { ledger.accept(reply) })
      return 'sent'
    })
  })
  await made.ask('/')
  await made.check(t)
})

t.test('a job staged after a failed response is over is judged by that end', async (t) => {
  let kept: FastifyReply | undefined
  const made = await site(t, ({ app }) => { app.get('/', async (_, reply) => { kept = reply; throw new Error('broken on purpose') }) })
  await made.ask('/')
  made.ledger.accept(kept as FastifyReply)
  await made.check(t, 1, 1)
  t.match(await made.job(), { state: 'cancelled', reason: 'response' })
})

for (const protocol of protocols) {
  t.test(`a job does not see the async context of its request, or does if it asks to, over ${protocol}`, async (t) => {
    const storage = new AsyncLocalStorage<string>()
    const seen: Record<string, unknown> = {}
    const made = await site(t, ({ app, ledger }) => {
      app.addHook('onRequest', (request, _, done) => { storage.run(request.url, done) })
      const task = app.background.define('look', async (payload: string) => { seen[payload] = storage.getStore() })
      app.get('/:any', async (request, reply) => {
        ledger.accept(reply)
        reply.background(async () => { seen['inline'] = storage.getStore() })
        reply.background(task, 'task')
        reply.background(async () => {
          await settle()
          seen[`caller ${request.url}`] = storage.getStore()
        }, { callerContext: true })
        reply.background(task, `task ${request.url}`, { callerContext: true })
        return storage.getStore()
      })
    }, { protocol })
    t.equal((await made.ask('/a')).body, '/a')
    t.equal((await made.ask('/b')).body, '/b')
    await made.check(t, 2)
    t.strictSame(seen, { inline: undefined, task: undefined, 'caller /a': '/a', 'task /a': '/a', 'caller /b': '/b', 'task /b': '/b' })
  })
}

t.test('the jobs of pipelined requests keep to their own contexts', async (t) => {
  const storage = new AsyncLocalStorage<string>()
  const seen: unknown[] = []
  const gate = deferred()
  const made = await site(t, ({ app, ledger }) => {
    app.addHook('onRequest', (request, _, done) => { storage.run(request.url, done) })
    app.get('/:n', async (request, reply) => {
      ledger.accept(reply)
      reply.background(() => { seen.push(storage.getStore()) })
      reply.background(() => { seen.push([request.url, storage.getStore()]) }, { callerContext: true })
      await gate.promise
      return 'answer;'
    })
  })
  const wire = new Wire(t, made)
  wire.send('/0', '/1', '/2')
  await made.ledger.accepted(3)
  gate.resolve()
  await wire.until('answer;', 3)
  await made.check(t, 3)
  t.same(seen, [undefined, ['/0', '/0'], undefined, ['/1', '/1'], undefined, ['/2', '/2']])
})

t.test('a job that waits for a slot does not see the context of the one before it', async (t) => {
  const storage = new AsyncLocalStorage<string>()
  const seen: unknown[] = []
  const made = await site(t, ({ app, ledger }) => {
    app.get<{ Params: { n: string } }>('/:n', (request, reply) => {
      storage.run(request.params.n, () => {
        ledger.accept(reply)
        reply.background(async () => { await settle(1); seen.push(storage.getStore()) }, { callerContext: request.params.n === '0' })
        void reply.send('sent')
      })
    })
  }, { plugin: { concurrency: 1 } })
  for (const n of [0, 1, 2]) await made.ask(`/${n}`)
  await made.check(t, 3)
  t.strictSame(seen, ['0', undefined, undefined])
})

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** Whether all of them are let go, as soon as may be. */
async function areFreed (refs: Array<WeakRef<object>>): Promise<boolean> {
  for (let turn = 0; turn < 50; turn++) {
    await settle()
    collect()
    if (refs.every((ref) => ref.deref() === undefined)) return true
  }
  return false
}

for (const protocol of protocols) {
  t.test(`request, reply and response are let go while the job still runs, over ${protocol}`, async (t) => {
    const gate = deferred()
    const started = deferred()
    const refs: Array<WeakRef<object>> = []
    const work = async (): Promise<void> => { started.resolve(); await gate.promise }
    const made = await site(t, ({ app }) => {
      app.get('/', async (request, reply) => {
        refs.push(new WeakRef(request), new WeakRef(reply), new WeakRef(request.raw), new WeakRef(reply.raw))
        reply.background(work)
        return 'sent'
      })
    }, { protocol })
    await made.ask('/')
    await started.promise
    t.ok(await areFreed(refs))
    gate.resolve()
    await made.app.background.onIdle()
  })
}

t.test('nothing of a pipelined response is kept by its connection', async (t) => {
  const refs: Array<WeakRef<object>> = []
  const made = await site(t, ({ app }) => {
    app.get('/', async (_, reply) => {
      reply.background(() => {})
      await settle()
      const { raw } = reply
      refs.push(new WeakRef(raw))
      for (const key of Object.getOwnPropertySymbols(raw)) {
        // What the gate keeps of a response, whatever that is.
        if (key.description?.startsWith('fastify-background-tasks')) refs.push(new WeakRef(Reflect.get(raw, key) as object))
      }
      return 'answer;'
    })
  })
  const wire = new Wire(t, made)
  wire.send('/', '/', '/')
  await wire.until('answer;', 3)
  wire.send('/missing') // the connection remembers its last request
  await wire.until('404')
  t.equal(refs.length, 6)
  t.ok(await areFreed(refs))
  t.notOk(wire.socket.destroyed)
})

t.test('request and reply are let go while a job waits for a free slot', async (t) => {
  const gate = deferred()
  const refs: Array<WeakRef<object>> = []
  const made = await site(t, ({ app }) => {
    const task = app.background.define('wait', async () => { await gate.promise })
    app.get('/', async (request, reply) => {
      refs.push(new WeakRef(request), new WeakRef(reply))
      for (let n = 0; n < 3; n++) reply.background(task)
      return 'sent'
    })
  }, { plugin: { concurrency: 1 } })
  await made.ask('/')
  t.ok(await areFreed(refs))
  t.match(await made.app.background.counts(), { default: { active: 1, waiting: 2 } })
  gate.resolve()
  await made.app.background.onIdle()
})

t.test('an inline function and what it closes over are let go when its job has ended', async (t) => {
  const refs: Array<WeakRef<object>> = []
  const made = await site(t, ({ app }) => {
    app.get('/', async (request, reply) => {
      refs.push(new WeakRef(request))
      return reply.background(async () => request.url).id
    })
  })
  const id = (await made.ask('/')).body
  await made.app.background.onIdle()
  t.ok(await areFreed(refs))
  t.match(await made.app.background.get(id), { state: 'completed', result: '/' }, 'the job is still known')
})
