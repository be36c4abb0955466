import { join } from 'node:path'
import t from 'tap'
// @ts-expect-error: the examples are JavaScript, and a program of their own
import { journal } from '../../examples/custom-backend.js'
import { TestClock } from '../support/clock.ts'
import { Bench, backendContract, completed, dead } from '../support/contract.ts'

let files = 0
const folder = t.testdir()
backendContract('the example of a backend', { create: (clock) => journal({ path: join(folder, `${files++}.jsonl`), clock }) })

t.test('what the journal has and nobody ended is there after a restart', async (t) => {
  const path = join(folder, 'restart.jsonl')
  const open = async (): Promise<Bench> => {
    const clock = new TestClock()
    const bench = new Bench(journal({ path, clock }), clock, 0)
    await bench.start()
    return bench
  }
  const before = await open()
  before.backend.want('default', 1)
  const ids = [await before.end(completed), await before.end(dead), await before.add({ payload: { a: 1 } }), await before.add()]
  const after = await open()
  t.strictSame(await after.states(ids), [undefined, undefined, 'waiting', 'waiting'])
  t.match(await after.read(ids[2] as string), { name: 'task', payload: { a: 1 } })
  await before.backend.close()
  await after.backend.close()
})
