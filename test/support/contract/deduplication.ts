/** Deduplication, as every backend that has it keeps it. */
import type { Duplicates } from '../../../lib/job.ts'
import { boom, completed, dead, type Bench, type JobParts, type Promises } from '../contract.ts'

const once = (id: string, more: JobParts = {}): JobParts => ({ ...more, deduplication: { id, ttl: 0 } })
const every = (ttl: number, id: string, more: JobParts = {}): JobParts => ({ ...more, deduplication: { id, ttl } })

/** Adds jobs in one call. Answers the ids they have, or those of the jobs that stand for them. */
async function put (bench: Bench, ...parts: JobParts[]): Promise<string[]> {
  const jobs = parts.map((part) => bench.job(part))
  const duplicates = await bench.backend.enqueue(jobs, parts[0]?.staged ?? false) as Duplicates | undefined
  return jobs.map(({ id }) => duplicates?.get(id)?.id ?? id)
}

export function deduplicationContract (promise: Promises): void {
  const needs = { needs: 'deduplication' } as const

  promise('while a job lives, another one of its deduplication id is not added', async (t, bench) => {
    const [first] = await put(bench, once('a', { payload: 'first' }))
    const second = bench.job(once('a', { payload: 'second' }))
    const duplicates = await bench.backend.enqueue([second], false) as Duplicates
    t.strictSame([...duplicates].map(([id, other]) => [id, other.id]), [[second.id, first]])
    t.equal(await bench.backend.get(second.id), undefined)
    t.equal((await bench.backend.counts()).default?.waiting, 1)
    t.strictSame({ ...bench.backend.load('default') }, { jobs: 1, bytes: 7 })
    bench.backend.want('default', 2)
    t.equal((await bench.take()).payload, 'first')
    t.strictSame(await put(bench, once('a')), [first], 'nor while it runs')
    await bench.rest()
    t.equal(bench.delivered.length, 1)
  }, needs)

  promise('the end of a job frees its deduplication id, however it ends', async (t, bench) => {
    bench.backend.want('default', 1)
    const ids = new Set(await put(bench, once('a')))
    for (const outcome of [completed, dead, { kind: 'cancelled', reason: 'user' }] as const) {
      await bench.settle(await bench.take(), outcome)
      for (const id of await put(bench, once('a'))) ids.add(id)
    }
    await bench.settle(await bench.take(), { kind: 'retry', delay: 60_000, error: boom, charged: true })
    for (const id of await put(bench, once('a'))) ids.add(id)
    t.equal(ids.size, 4, 'a retry is no end')
    await bench.backend.cancel([...ids][3] as string, 'user', '')
    t.notOk(ids.has((await put(bench, once('a')))[0] as string))
  }, needs)

  promise('deduplication ids are those of a task in a queue', async (t, bench) => {
    const ids = [
      ...await put(bench, once('a')), ...await put(bench, once('a', { name: 'other' })), ...await put(bench, once('a', { queue: 'other' })),
      ...await put(bench, once('b')), ...await put(bench, once('a:b', { name: 'x' })), ...await put(bench, once('b', { name: 'x:a' }))
    ]
    t.equal(new Set(ids).size, 6)
  }, needs)

  promise('of the jobs of one call the first of a deduplication id is added', async (t, bench) => {
    const ids = await put(bench, once('a'), {}, once('a'), once('b'), once('a'))
    t.strictSame(ids.map((id) => ids.indexOf(id)), [0, 1, 0, 3, 0])
    t.equal((await bench.backend.counts()).default?.waiting, 3)
  }, needs)

  promise('of jobs that are added at the same time one of a deduplication id is', async (t, bench) => {
    const ids = await Promise.all(Array.from({ length: 20 }, () => put(bench, once('a'))))
    t.equal(new Set(ids.flat()).size, 1)
    t.equal((await bench.backend.counts()).default?.waiting, 1)
  }, needs)

  promise('with a ttl a deduplication id is taken for so long, also beyond the end of its job', async (t, bench) => {
    bench.backend.want('default', 5)
    const [first] = await put(bench, every(2_500, 'a'))
    await bench.settle(await bench.take(), completed)
    t.strictSame(await put(bench, every(2_500, 'a')), [first])
    const [lasting] = await put(bench, every(2_500, 'b'))
    await bench.pass(2_501)
    t.not((await put(bench, every(2_500, 'a')))[0], first)
    t.not((await put(bench, every(2_500, 'b')))[0], lasting, 'nor longer, though that one lives')
  }, needs)

  promise('a cancel frees a deduplication id that has a ttl', async (t, bench) => {
    const [waiting] = await put(bench, every(60_000, 'a')) as [string]
    await bench.backend.cancel(waiting, 'user', '')
    t.not((await put(bench, every(60_000, 'a')))[0], waiting)
    bench.backend.want('default', 1)
    const running = await bench.take()
    await bench.settle(running, { kind: 'cancelled', reason: 'user' })
    t.not((await put(bench, every(60_000, 'a')))[0], running.job.id)
  }, needs)

  promise('a duplicate lets a job start that waits for its response, unless it waits for one too', async (t, bench) => {
    bench.backend.want('default', 5)
    const [first] = await put(bench, once('a', { staged: true })) as [string]
    t.strictSame(await put(bench, once('a', { staged: true })), [first])
    await bench.rest()
    t.strictSame(await bench.states([first]), ['pending'])
    t.strictSame(await put(bench, once('a')), [first])
    t.equal((await bench.take()).job.id, first)
  }, needs)

  promise('a duplicate is told by what the first is to be recognized', async (t, bench) => {
    const printed = (print: string): JobParts => ({ deduplication: { id: 'a', ttl: 60_000, print } })
    await put(bench, printed('one'))
    const duplicates = await bench.backend.enqueue([bench.job(printed('two'))], false) as Duplicates
    t.strictSame([...duplicates.values()].map(({ print }) => print), ['one'])
  }, needs)

  promise('an id that came from a client is let go with its job', async (t, bench) => {
    const printed: JobParts = { deduplication: { id: 'a', ttl: 60_000, print: 'one' } }
    bench.backend.want('default', 1)
    const [first] = await put(bench, printed) as [string]
    await bench.settle(await bench.take(), completed)
    t.strictSame(await put(bench, printed), [first])
    await bench.backend.remove([first])
    t.not((await put(bench, printed))[0], first)
  }, needs)

  promise('a dead letter that starts again takes its deduplication id again, unless another job has it', async (t, bench) => {
    bench.backend.want('default', 1)
    const [first] = await put(bench, once('a')) as [string]
    await bench.settle(await bench.take(), dead)
    await bench.backend.retry([first], 0)
    t.strictSame(await put(bench, once('a')), [first])
    await bench.settle(await bench.take(), dead)
    const [second] = await put(bench, once('a'))
    await bench.backend.retry([first], 0)
    t.strictSame(await put(bench, once('a')), [second])
  }, needs)
}
