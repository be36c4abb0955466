/** Requests first: in which turns of the loop jobs may start. */
import { once } from 'node:events'
import { connect } from 'node:net'
import { performance } from 'node:perf_hooks'
import Fastify from 'fastify'
import { test } from 'tap'
import type { Clock, Timer } from '../../lib/clock.ts'
import { backgroundTasks } from '../../lib/index.ts'
import { Turns } from '../../lib/jobs/turns.ts'
import { until } from '../support/harness.ts'

/** An event loop in the hand of the test: what its polls read, and when it turns. */
class Loop implements Clock {
  time = 1_000
  reads = 0
  turns = 0
  readonly #soon: Array<() => void> = []
  readonly now = (): number => this.time
  readonly monotonic = (): number => this.time
  readonly random = (): number => 0.5
  readonly read = (): number => this.reads
  readonly soon = (run: () => void): void => { this.#soon.push(run) }
  setTimer (): Timer { throw new Error('no timer is needed') }
  clearTimer (): void {}

  /** One turn of `ms`, whose poll reads so many events. Then all that follows at once happens. */
  async turn (events: number, ms = 0.01): Promise<void> {
    this.time += ms
    this.reads += events
    this.turns++
    for (const run of this.#soon.splice(0)) run()
    await new Promise((resolve) => { setImmediate(resolve) })
  }
}

/** Waits for slices all the time; counts them, each `ms` long. */
function work (loop: Loop, turns: Turns, ms: number): { slices: number } {
  const done = { slices: 0 }
  const go = async (): Promise<void> => {
    await turns.next()
    done.slices++
    loop.time += ms
    if (!turns.over) turns.rest()
    void go()
  }
  turns.look()
  void go()
  return done
}

test('a slice begins in a turn whose poll read nothing, and in no other', async (t) => {
  const loop = new Loop()
  const turns = new Turns(loop, true)
  const done = work(loop, turns, 5)
  await loop.turn(0)
  t.equal(done.slices, 1)
  for (let n = 0; n < 20; n++) await loop.turn(1)
  t.equal(done.slices, 1, 'connections and requests come one after the other, and go first')
  await loop.turn(0)
  t.equal(done.slices, 2)
  await loop.turn(0)
  t.equal(done.slices, 3)
})

test('under endless load jobs get an eighth of the time', async (t) => {
  for (const ms of [0.5, 1, 5, 40]) {
    const loop = new Loop()
    const turns = new Turns(loop, true)
    const done = work(loop, turns, ms)
    const began = loop.time
    while (done.slices < 20) await loop.turn(3, 0.2)
    const share = 20 * ms / (loop.time - began)
    t.ok(share > 0.1 && share < 0.15, `${share} for jobs of ${ms} ms`)
  }
})

test('who was idle for a while does not wait behind endless load', async (t) => {
  const loop = new Loop()
  const turns = new Turns(loop, true)
  turns.look()
  let begun = 0
  for (const wait of [0, 1_000, 1_000]) {
    loop.time += wait
    t.ok(turns.over)
    const slice = turns.next().then(() => { begun++ })
    await loop.turn(7)
    await slice
    loop.time += 0.3
    turns.rest()
  }
  t.equal(begun, 3)
})

test('without foreground, and by a clock that does not tell what was read, each turn has a slice', async (t) => {
  const loop = new Loop()
  const deaf: Clock = { now: loop.now, monotonic: loop.monotonic, random: loop.random, soon: loop.soon, setTimer: () => loop.setTimer(), clearTimer: () => {} }
  for (const turns of [new Turns(loop, false), new Turns(deaf, true)]) {
    const done = work(loop, turns, 5)
    for (let n = 0; n < 10; n++) await loop.turn(4)
    t.equal(done.slices, 10)
  }
})

test('bodies that give way come back in slices of their own, not all in one turn', async (t) => {
  const loop = new Loop()
  const turns = new Turns(loop, true)
  const inTurn: number[] = []
  for (let n = 0; n < 10; n++) {
    void (async () => {
      await turns.give()
      inTurn.push(loop.turns)
      loop.time += 0.4
    })()
  }
  for (let n = 0; n < 10; n++) {
    await loop.turn(1)
    await loop.turn(0)
  }
  t.equal(inTurn.length, 10)
  const most = Math.max(...inTurn.map((turn) => inTurn.filter((each) => each === turn).length))
  t.equal(most, 2, 'two of 0.4 ms are more than a slice')
})

test('a burst of new connections is accepted between two jobs', async (t) => {
  const runWith = async (foreground: boolean): Promise<number> => {
    const app = Fastify()
    t.teardown(() => app.close())
    await app.register(backgroundTasks, { foreground })
    let jobs = 0
    let going = true
    app.background.define('busy', async (_payload, { app }) => {
      const end = performance.now() + 3
      while (performance.now() < end);
      jobs++
      if (going) await app.background.add('busy')
    })
    await app.listen({ port: 0, host: '127.0.0.1' })
    const { port } = app.server.address() as { port: number }
    let accepted = 0
    let [first, last] = [0, 0]
    app.server.on('connection', () => {
      if (++accepted === 1) first = jobs
      last = jobs
    })
    await app.background.addBulk(Array.from({ length: 20 }, () => ({ name: 'busy' })))
    await until(() => jobs > 3)
    const sockets = Array.from({ length: 48 }, () => connect(port, '127.0.0.1'))
    await until(() => accepted === 48)
    going = false
    for (const socket of sockets) socket.destroy()
    await Promise.all(sockets.map(async (socket) => { if (!socket.closed) await once(socket, 'close') }))
    await app.background.onIdle()
    await app.close()
    return last - first
  }
  const [first, never] = [await runWith(true), await runWith(false)]
  // One is accepted in a turn of the loop. Of a machine that is slow meanwhile jobs get their eighth.
  t.ok(never > 2 * first, `${first} jobs ran meanwhile, ${never} without foreground`)
})
