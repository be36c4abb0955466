/** Several responses on one connection: behind each other (pipelining) and after each other (keep-alive). */
import http from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyReply } from 'fastify'
import t from 'tap'
import { deferred, type Deferred } from '../../support/harness.ts'
import { site, Wire, type Site } from '../../support/http.ts'
import { leftOn, settle } from '../../support/ledger.ts'


/** `/n` stages job n and waits for gate n. */
async function sceneOf (t: any, requests: number, control = false): Promise<{ made: Site, gates: Deferred[], wire: Wire, socket: Socket }> {
  const gates = Array.from({ length: requests }, () => deferred())
  const made = await site(t, ({ app, ledger }) => {
    app.get<{ Params: { n: string } }>('/:n', async (request, reply) => {
      const { n } = request.params
      ledger.accept(reply, {}, `job ${n}`)
      await gates[Number(n)]!.promise
      ledger.events.push(`handler ${n}`)
      return `answer ${n};`
    })
    ledger.control = control
  })
  const wire = new Wire(t, made)
  wire.send(...gates.map((_, n) => `/${n}`))
  await made.ledger.accepted(requests)
  return { made, gates, wire, socket: made.ledger.entries[0]!.socket }
}

t.test('each job starts after its own response, and those come in the order of their requests', async (t) => {
  const { made, gates, wire } = await sceneOf(t, 3)
  gates[2]!.resolve()
  gates[1]!.resolve()
  await settle()
  t.same(made.ledger.events, ['handler 2', 'handler 1'], 'answered, but not sent yet')
  gates[0]!.resolve()
  await wire.until('answer 2;')
  await made.check(t, 3)
  t.same(made.ledger.events, ['handler 2', 'handler 1', 'handler 0', 'job 0', 'job 1', 'job 2'])
})

t.test('the jobs of later requests start once when the client leaves while the first is pending', async (t) => {
  const { made, gates, wire, socket } = await sceneOf(t, 3)
  wire.socket.destroy()
  await made.ledger.entries[0]!.end.promise
  await settle()
  t.same(made.ledger.events, [], 'their handlers have not ended')
  for (const gate of gates) gate.resolve()
  await made.check(t, 3)
  for (const n of [0, 1, 2]) t.ok(made.ledger.events.indexOf(`handler ${n}`) < made.ledger.events.indexOf(`job ${n}`), `handler ${n} was first`)
  t.same(leftOn(socket), await leftWithoutJobs(t, 3), 'no listener is left on the socket')
})

/** What is left on the socket of such a client when nothing was staged. */
async function leftWithoutJobs (t: any, requests: number): Promise<Record<string, number>> {
  const { made, gates, wire, socket } = await sceneOf(t, requests, true)
  wire.socket.destroy()
  await made.ledger.entries[0]!.end.promise
  for (const gate of gates) gate.resolve()
  await settle()
  return leftOn(socket)
}

t.test('a response that was ready behind a pending one is over when the client leaves', async (t) => {
  const { made, gates, wire } = await sceneOf(t, 2)
  gates[1]!.resolve()
  await settle()
  t.equal((await made.job(1)).state, 'pending')
  wire.socket.destroy()
  await made.ledger.entries[1]!.end.promise
  await settle()
  t.equal((await made.job(1)).state, 'completed')
  t.equal((await made.job(0)).state, 'pending', 'its handler has not ended')
  gates[0]!.resolve()
  await made.check(t, 2)
})

t.test('a response that was cut off behind a pending one counts as aborted', async (t) => {
  const outcomes: unknown[] = []
  const gate = deferred()
  const made = await site(t, ({ app, ledger }) => {
    app.get('/first', async () => { await gate.promise })
    app.get('/second', async (_, reply) => {
      ledger.accept(reply, { when: (outcome) => { outcomes.push(outcome); return true } })
      return 'never sent'
    })
  })
  const wire = new Wire(t, made)
  wire.send('/first', '/second')
  await made.ledger.accepted(1)
  await settle()
  wire.socket.destroy()
  await made.check(t)
  t.same(outcomes, [{ statusCode: 200, error: undefined, aborted: true }])
  gate.resolve()
})

t.test('a response that breaks behind a pending one lets its job start once', async (t) => {
  const gate = deferred()
  const made = await site(t, ({ app, ledger }) => {
    app.get('/first', async (_, reply) => { ledger.accept(reply); await gate.promise; return 'first;' })
    app.get('/second', async (_, reply) => { ledger.accept(reply); reply.hijack(); reply.raw.destroy() })
  })
  const wire = new Wire(t, made)
  wire.send('/first', '/second')
  await made.ledger.accepted(2)
  await settle()
  t.equal((await made.job(0)).state, 'pending')
  gate.resolve()
  await wire.until('first;')
  await made.check(t, 2)
})

t.test('a job staged behind a response that has just broken waits for its own handler', async (t) => {
  const gate = deferred()
  let first: FastifyReply | undefined
  const made = await site(t, ({ app, ledger }) => {
    app.get('/first', async (_, reply) => { first = reply.hijack() })
    app.get('/second', async (_, reply) => {
      first?.raw.destroy() // with the connection, which closes in a later turn
      ledger.accept(reply)
      await gate.promise
      ledger.events.push('handler')
      return 'unheard'
    })
  })
  const wire = new Wire(t, made)
  wire.send('/first', '/second')
  await made.ledger.accepted(1)
  await made.ledger.entries[0]!.end.promise
  await settle()
  gate.resolve()
  await made.check(t)
  t.same(made.ledger.events, ['handler', 'job'])
})

t.test('the handler of a pipelined request may stage its job when the client has left', async (t) => {
  const gate = deferred()
  const inHandlers = [deferred(), deferred()] as const
  const made = await site(t, ({ app, ledger }) => {
    app.get<{ Params: { n: string } }>('/:n', async (request, reply) => {
      inHandlers[Number(request.params.n) as 0 | 1].resolve()
      await gate.promise
      ledger.accept(reply)
      return 'unheard'
    })
  })
  const wire = new Wire(t, made)
  wire.send('/0', '/1')
  await Promise.all(inHandlers.map(({ promise }) => promise))
  const closed = deferred()
  wire.socket.once('close', () => { closed.resolve() }).destroy()
  await closed.promise
  while (await new Promise<number>((resolve) => { made.app.server.getConnections((_, count) => { resolve(count) }) }) > 0) await settle(1)
  gate.resolve()
  await made.check(t, 2)
})

t.test('no listener for each request piles up on the socket', async (t) => {
  const one = await sceneOf(t, 1)
  const many = await sceneOf(t, 30)
  // One for all those that wait. Thirty would also be a process warning, which fails the test.
  t.ok(many.socket.listenerCount('close') <= one.socket.listenerCount('close') + 1)
  for (const { made, gates, wire } of [one, many]) {
    for (const gate of gates) gate.resolve()
    await wire.until(`answer ${gates.length - 1};`)
    await made.check(t, gates.length)
  }
})

t.test('a second batch of pipelined requests adds no listener to the socket', async (t) => {
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', async (_, reply) => { ledger.accept(reply); await settle(); return 'answer;' })
  })
  const wire = new Wire(t, made)
  wire.send('/', '/', '/')
  await wire.until('answer;', 3)
  const { socket } = made.ledger.entries[0]!
  const before = leftOn(socket)
  for (let batch = 1; batch <= 5; batch++) {
    wire.send('/', '/', '/')
    await wire.until('answer;', 3 * (batch + 1))
  }
  await made.check(t, 18)
  t.same(leftOn(socket), before)
})

t.test('fifty requests after each other leave no listener on their socket', async (t) => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  t.teardown(() => { agent.destroy() })
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', async (_, reply) => { ledger.accept(reply); return 'sent' })
    app.get('/bare', async (_, reply) => { bare = leftOn(reply.request.raw.socket); return 'sent' })
  })
  let bare = {}
  const ask = (path: string): Promise<void> => new Promise((resolve, reject) => {
    http.get({ port: made.port, host: '127.0.0.1', path, agent }, (message) => { message.on('end', resolve).resume() }).on('error', reject)
  })
  await ask('/') // the ledger listens to a socket that it knows
  await ask('/bare')
  const before = bare
  for (let n = 1; n < 50; n++) await ask('/')
  await made.check(t, 50)
  await ask('/bare')
  t.equal(new Set(made.ledger.entries.map(({ socket }) => socket)).size, 1, 'it was one socket')
  t.same(bare, before)
})

t.test('a hundred jobs of one response need no more listeners than one', async (t) => {
  const counts: number[] = []
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', async (_, reply) => {
      for (let n = 0; n < 100; n++) {
        ledger.accept(reply)
        counts.push(reply.raw.listenerCount('close') + reply.raw.listenerCount('finish'))
      }
      return 'sent'
    })
  })
  await made.ask('/')
  t.equal(counts.at(-1), counts[0])
  await made.check(t, 100)
})
