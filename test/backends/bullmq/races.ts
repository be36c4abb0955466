/** What is asked for at the same time. */
import type { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import { PostgresConnection } from 'bullmq'
import { test, type Test } from 'tap'
import { TestClock } from '../../support/clock.ts'
import { Bench, dead } from '../../support/contract.ts'
import type { Store } from './store.ts'

export function racesOn (store: Store): Promise<unknown> {
  const made = (t: Test): Bench => {
    const bench = new Bench(store.create(), new TestClock(), 100)
    t.teardown(() => bench.backend.close())
    return bench
  }
  return test(`calls at the same time on ${store.kind.name}`, { buffered: true }, async (t) => {
    t.test('a job that is moved twice is moved once, and no call fails for it', async (t) => {
      const bench = made(t)
      await bench.start()
      const { backend } = bench
      backend.want('default', 1)
      const [died, gone] = [await bench.end(dead), await bench.end(dead)]
      backend.want('default', 0)
      t.strictSame((await Promise.all([backend.retry([died], 0), backend.retry([died], 0)])).sort(), [0, 1])
      await Promise.all([backend.retry([gone], 0), backend.remove([gone])])
      const delayed = await bench.add({ delay: 60_000 })
      // PostgreSQL may promote a job for both.
      t.ok((await Promise.all([backend.promote?.(delayed), backend.promote?.(delayed)])).includes(true))
      await Promise.all([backend.promote?.(await bench.add({ delay: 60_000 })), backend.cancel(delayed, 'user', '')])
      t.strictSame(bench.incidents, [])
    })

    t.test('one that is started twice is refused, and goes on', async (t) => {
      const bench = made(t)
      const first = bench.start()
      await t.rejects(bench.start(), { code: 'FST_BG_BAD_OPTION' })
      await first
      t.ok(await bench.read(await bench.add()))
    })

    if (store.kind.name === 'postgres') t.test('a connection that ends while it is set up is told by ready, and ends no process', async (t) => {
      const { pool } = new PostgresConnection(store.url)
      const acquired = pool as unknown as EventEmitter
      acquired.on('acquire', ({ connection }: { connection: { stream: Socket } }) => { setImmediate(() => connection.stream.destroy()) })
      const bench = new Bench(store.create({ connection: pool }), new TestClock(), 100)
      await t.rejects(bench.start(), { code: 'FST_BG_STORE_UNAVAILABLE' })
      await bench.backend.close()
      await pool.end()
      t.equal(acquired.listenerCount('acquire'), 1, 'a pool of the application is left as it was')
    })

    t.test('one that is closed while it starts does not start', async (t) => {
      const bench = made(t)
      const starting = bench.start()
      await Promise.all([t.rejects(starting, { code: 'FST_BG_CLOSING' }), bench.backend.close()])
    })
  })
}
