/** The promises about rate limits of a queue. */
import { completed, type Promises } from '../contract.ts'

const queues = { default: { limiter: { max: 1, duration: 600 } } }

export function limitsContract (promise: Promises): void {
  promise('a limiter counts the starts of bodies, not their ends', async (t, bench) => {
    bench.backend.want('default', 9)
    await bench.enqueue({ name: 'a' }, { name: 'b' })
    const first = await bench.take()
    await bench.backend.note(first, { started: true })
    await bench.pass(500)
    await bench.settle(first, completed)
    if (bench.livesByClock) t.equal(bench.delivered.length, 1)
    await bench.pass(101)
    await bench.deliveries(2)
  }, { needs: 'limiter', queues })

  promise('a start that was granted and never happened does not count', async (t, bench) => {
    bench.backend.want('default', 9)
    const [id] = await bench.enqueue({ name: 'a' }, { name: 'b' }) as [string]
    const first = await bench.take()
    t.equal(await bench.backend.cancel(id, 'user', ''), 'cancelling')
    await bench.settle(first, { kind: 'cancelled', reason: 'user' })
    await bench.deliveries(2)
    await bench.backend.note(await bench.take(), { started: true })
    await bench.enqueue({ name: 'c' })
    await bench.rest()
    t.strictSame(bench.names(), ['a', 'b'])
  }, { needs: 'limiter', queues })
}
