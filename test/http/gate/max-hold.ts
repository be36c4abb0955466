/** The longest wait for a response. */
import t from 'tap'
import { memory } from '../../../lib/index.ts'
import { TestClock } from '../../support/clock.ts'
import { closeInTime, deferred } from '../../support/harness.ts'
import { open, site, Wire, type Site } from '../../support/http.ts'
import { leftOn, settle } from '../../support/ledger.ts'


const minute = 60_000

/** Handlers that wait for a gate, and time in the test's hand. */
async function sceneOf (t: any, { maxHold = minute, jobs = 1 } = {}) {
  const clock = new TestClock()
  const gate = deferred()
  const outcomes: unknown[] = []
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', async (_, reply) => {
      for (let n = 0; n < jobs; n++) ledger.accept(reply, { when: (outcome) => { outcomes.push(outcome); return true } })
      await gate.promise
      ledger.events.push('handler')
      if (reply.raw.destroyed) return 'unheard'
      ledger.accept(reply, {}, 'late job')
      return reply.code(202).send('late')
    })
  }, { plugin: { maxHold, backend: memory({ clock }) } })
  t.teardown(() => closeInTime(made.app, clock))
  return { made, clock, gate, outcomes }
}

async function state (made: Site): Promise<string | undefined> {
  return (await made.job()).state
}

t.test('a job starts at maxHold, and not before', async (t) => {
  const { made, clock, gate, outcomes } = await sceneOf(t)
  const asked = made.ask('/')
  await made.ledger.accepted(1)
  await clock.advance(minute - 2)
  t.equal(await state(made), 'pending')
  await clock.advance(2)
  t.equal(await state(made), 'completed')
  t.same(outcomes, [{ statusCode: 200, error: undefined, aborted: false }])
  gate.resolve()
  await asked
})

t.test('a job that was started by maxHold is not started again when its response ends', async (t) => {
  const { made, clock, gate } = await sceneOf(t)
  const asked = made.ask('/')
  await made.ledger.accepted(1)
  await clock.advance(minute)
  gate.resolve()
  t.match(await asked, { status: 202, body: 'late' })
  await clock.advance(10 * minute)
  t.same(made.ledger.entries.map(({ runs }) => runs), [1, 1])
})

t.test('a job staged after maxHold starts at once', async (t) => {
  const { made, clock, gate } = await sceneOf(t)
  const asked = made.ask('/')
  await made.ledger.accepted(1)
  await clock.advance(minute)
  gate.resolve()
  await asked
  await settle()
  t.same(made.ledger.events, ['job', 'handler', 'late job'])
})

t.test('what maxHold did is logged once for a response, with its request, and counted', async (t) => {
  const { made, clock, gate } = await sceneOf(t, { jobs: 3 })
  const asked = made.ask('/')
  await made.ledger.accepted(3)
  await clock.advance(minute)
  gate.resolve()
  await asked
  const { requestId } = await made.job()
  const said = made.logged('the response did not end within maxHold, its jobs go on without it')
  t.match(said, [{ level: 40, reqId: requestId, jobs: 3, maxHold: minute }])
  t.equal(said.length, 1)
  t.equal(JSON.parse((await made.ask('/health/jobs')).body).incidents.held, 1)
})

t.test('nothing is logged for a response that ends in time', async (t) => {
  const { made, clock, gate } = await sceneOf(t)
  gate.resolve()
  await made.ask('/')
  await clock.advance(10 * minute)
  t.same(made.logged('the response did not end within maxHold, its jobs go on without it'), [])
})

t.test('no listener of ours is left on a response that maxHold gave up', async (t) => {
  const { made, clock, gate } = await sceneOf(t)
  const asked = made.ask('/')
  await made.ledger.accepted(1)
  const { raw } = made.ledger.entries[0]!
  const before = raw.listenerCount('close') + raw.listenerCount('finish')
  await clock.advance(minute)
  t.equal(raw.listenerCount('close') + raw.listenerCount('finish'), before - 2)
  gate.resolve()
  await asked
})

t.test('nothing of ours is left on a response that maxHold gave up when its client had left', async (t) => {
  const { made, clock, gate } = await sceneOf(t)
  const exchange = await open(made, '/')
  await made.ledger.accepted(1)
  const { raw } = made.ledger.entries[0]!
  exchange.leave()
  await made.ledger.entries[0]!.end.promise
  t.match(leftOn(raw), { newListener: 1, writeHead: 1, end: 1, destroy: 1 }, 'until then its answer is waited for')
  await clock.advance(minute)
  t.match(leftOn(raw), { newListener: 0, writeHead: undefined, end: undefined, destroy: undefined })
  gate.resolve()
})

t.test('maxHold is counted from the call, also when the client leaves in between', async (t) => {
  const { made, clock, gate, outcomes } = await sceneOf(t)
  const exchange = await open(made, '/')
  await made.ledger.accepted(1)
  await clock.advance(minute / 2)
  exchange.leave()
  await made.ledger.entries[0]!.end.promise
  await clock.advance(minute / 2 - 2)
  t.equal(await state(made), 'pending')
  await clock.advance(2)
  t.equal(await state(made), 'completed')
  t.same(outcomes, [{ statusCode: 200, error: undefined, aborted: true }])
  gate.resolve()
  await settle()
  t.same(made.ledger.entries.map(({ runs }) => runs), [1], 'the end of the handler starts nothing again')
  t.same(made.log.filter(({ level }) => level >= 50), [])
})

t.test('onAbort is asked at maxHold when the client has left', async (t) => {
  const clock = new TestClock()
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', (_, reply) => { ledger.accept(reply, { onAbort: 'drop' }) })
  }, { plugin: { maxHold: minute, backend: memory({ clock }) } })
  t.teardown(() => closeInTime(made.app, clock))
  const exchange = await open(made, '/')
  await made.ledger.accepted(1)
  exchange.leave()
  await made.ledger.entries[0]!.end.promise
  await clock.advance(minute)
  t.match(await made.job(), { state: 'cancelled', reason: 'client-abort' })
})

t.test('a hijacked response that is never ended lets its job start at maxHold', async (t) => {
  const clock = new TestClock()
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', (_, reply) => { ledger.accept(reply); reply.hijack() })
  }, { plugin: { maxHold: minute, backend: memory({ clock }) } })
  t.teardown(() => closeInTime(made.app, clock))
  const exchange = await open(made, '/')
  await made.ledger.accepted(1)
  await clock.advance(minute)
  t.match(await made.job(), { state: 'completed' })
  exchange.leave()
  await made.ledger.entries[0]!.end.promise
  await settle()
  t.same(made.ledger.entries.map(({ runs }) => runs), [1])
})

t.test('each of many responses is given up at its own time', async (t) => {
  const { made, clock, gate } = await sceneOf(t)
  const wires = [new Wire(t, made), new Wire(t, made), new Wire(t, made)]
  for (const [n, wire] of wires.entries()) {
    wire.send('/')
    await made.ledger.accepted(n + 1)
    await clock.advance(10_000)
  }
  const runs = (): number[] => made.ledger.entries.map((entry) => entry.runs)
  await clock.advance(30_000)
  t.same(runs(), [1, 0, 0])
  await clock.advance(10_000)
  t.same(runs(), [1, 1, 0])
  await clock.advance(10_000)
  t.same(runs(), [1, 1, 1])
  gate.resolve()
  await Promise.all(wires.map((wire) => wire.until('late')))
})

t.test('a pipelined response is given up behind a pending one', async (t) => {
  const { made, clock, gate } = await sceneOf(t)
  const wire = new Wire(t, made)
  wire.send('/', '/')
  await made.ledger.accepted(2)
  await clock.advance(minute)
  t.same(made.ledger.entries.map(({ runs }) => runs), [1, 1])
  wire.socket.destroy()
  await made.ledger.entries[1]!.end.promise
  gate.resolve()
  await settle()
  t.same(made.ledger.entries.slice(0, 2).map(({ runs }) => runs), [1, 1])
})
