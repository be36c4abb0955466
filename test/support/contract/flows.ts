/** Flows, as every backend that has them keeps them. */

import type { ChildRecord, FlowNode } from '../../../lib/job.ts'
import { boom, completed, dead, retryIn, type Bench, type JobParts, type Promises } from '../contract.ts'

interface Tree extends JobParts {
  ignored?: boolean
  children?: Tree[]
}

/** Adds a flow. Answers the ids of its jobs by their names. */
async function put (bench: Bench, tree: Tree): Promise<Record<string, string>> {
  const ids: Record<string, string> = {}
  const node = ({ ignored = false, children = [], ...parts }: Tree): FlowNode => {
    const job = bench.job(parts)
    ids[job.name] = job.id
    return { job, ignored, children: children.map(node) }
  }
  await bench.backend.flows?.add(node(tree))
  return ids
}

const withResult = (result: string) => ({ kind: 'completed', result }) as const
const shown = (children: readonly ChildRecord[] | undefined) => children?.map(({ name, state, result, error }) => [name, state, result ?? error?.message])

export function flowsContract (promise: Promises): void {
  const needs = { needs: 'flows' } as const

  promise('a parent starts when its children have completed, with their results in the order they were given', async (t, bench) => {
    bench.backend.want('default', 5)
    const ids = await put(bench, { name: 'parent', payload: 'p', children: [{ name: 'a' }, { name: 'b' }] })
    t.match(await bench.read(ids['parent'] as string), { state: 'waiting-children', attemptsMade: 0, startedAt: null, finishedAt: null })
    t.equal((await bench.read(ids['a'] as string)).parent, ids['parent'])
    t.equal((await bench.backend.counts()).default?.['waiting-children'], 1)
    const [a, b] = [await bench.take(), await bench.take()]
    t.strictSame([a.children, a.job.name, b.job.name], [undefined, 'a', 'b'])
    t.strictSame({ ...bench.backend.load('default') }, { jobs: 1, bytes: 3 })
    await bench.settle(b, withResult('of b'))
    await bench.rest()
    t.equal(bench.delivered.length, 2)
    await bench.settle(a, withResult('of a'))
    const parent = await bench.take()
    t.strictSame(shown(parent.children), [['a', 'completed', 'of a'], ['b', 'completed', 'of b']])
    t.strictSame(parent.children?.map(({ id }) => id), [ids['a'], ids['b']])
    await bench.settle(parent, withResult('of both'))
    t.match(await bench.read(ids['parent'] as string), { state: 'completed', result: 'of both', attemptsMade: 1 })
    t.match((await bench.backend.counts()).default, { 'waiting-children': 0, completed: 3 })
  }, needs)

  promise('a parent that is tried again has the results again', async (t, bench) => {
    bench.backend.want('default', 1)
    await put(bench, { name: 'parent', children: [{ name: 'a' }] })
    await bench.settle(await bench.take(), withResult('of a'))
    await bench.settle(await bench.take(), retryIn(0))
    const again = await bench.take()
    t.equal(again.number, 2)
    t.strictSame(shown(again.children), [['a', 'completed', 'of a']])
  }, needs)

  promise('a child that fails fails its parent at once, and the others go on', async (t, bench) => {
    bench.backend.want('default', 5)
    const ids = await put(bench, { name: 'parent', children: [{ name: 'a', attempts: 2 }, { name: 'b' }] })
    const [a, b] = [await bench.take(), await bench.take()]
    await bench.settle(a, retryIn(0))
    t.equal((await bench.read(ids['parent'] as string)).state, 'waiting-children', 'a retry is no end')
    await bench.settle(await bench.take(), dead)
    await bench.until(() => bench.told().length > 0, 'the end of the parent')
    t.strictSame(bench.told(), ['child-failed parent'])
    t.match(await bench.read(ids['parent'] as string), {
      state: 'failed', failure: 'unrecoverable', attemptsMade: 0, startedAt: null, finishedAt: String, error: { code: 'FST_BG_CHILD_FAILED', message: new RegExp(ids['a'] as string) }
    })
    await bench.settle(b, completed)
    await bench.rest()
    t.equal((await bench.read(ids['b'] as string)).state, 'completed')
    t.equal(bench.delivered.length, 3)
    t.strictSame({ ...bench.backend.load('default') }, { jobs: 0, bytes: 0 })
  }, needs)

  promise('a child whose failure is ignored does not keep its parent from starting', async (t, bench) => {
    bench.backend.want('default', 5)
    await put(bench, { name: 'parent', children: [{ name: 'a', ignored: true }, { name: 'b', ignored: true }] })
    await bench.settle(await bench.take(), dead)
    await bench.settle(await bench.take(), withResult('of b'))
    const parent = await bench.take()
    t.strictSame(shown(parent.children), [['a', 'failed', boom.message], ['b', 'completed', 'of b']])
  }, needs)

  promise('a flow may have many levels, over several queues', async (t, bench) => {
    bench.backend.want('default', 5)
    bench.backend.want('other', 5)
    await put(bench, { name: 'top', children: [{ name: 'middle', queue: 'other', children: [{ name: 'leaf' }, { name: 'leaf too', queue: 'other' }] }, { name: 'side' }] })
    for (let n = 0; n < 5; n++) {
      const { job } = await bench.take()
      await bench.settle(bench.delivered[n] as never, withResult(`of ${job.name}`))
    }
    t.strictSame(bench.names().slice(3), ['middle', 'top'])
    t.strictSame(shown(bench.delivered[3]?.children), [['leaf', 'completed', 'of leaf'], ['leaf too', 'completed', 'of leaf too']])
    t.strictSame(shown(bench.delivered[4]?.children), [['middle', 'completed', 'of middle'], ['side', 'completed', 'of side']])
  }, needs)

  promise('a failure climbs up all levels that do not ignore it', async (t, bench) => {
    bench.backend.want('default', 5)
    const ids = await put(bench, { name: 'top', children: [{ name: 'middle', children: [{ name: 'leaf' }] }] })
    await bench.settle(await bench.take(), dead)
    await bench.until(() => bench.told().length === 2, 'both parents to fail')
    t.strictSame(await bench.states([ids['top'] as string, ids['middle'] as string]), ['failed', 'failed'])
    await put(bench, { name: 'top', children: [{ name: 'middle', ignored: true, children: [{ name: 'leaf' }] }] })
    await bench.settle(await bench.take(), dead)
    const top = await bench.take()
    t.match(top.children, [{ name: 'middle', state: 'failed' }])
  }, needs)

  promise('the cancel of a parent cancels the children that do not run, on all levels', async (t, bench) => {
    bench.backend.want('default', 1)
    const ids = await put(bench, { name: 'top', children: [{ name: 'running' }, { name: 'waiting' }, { name: 'middle', children: [{ name: 'leaf' }] }] })
    const running = await bench.take()
    t.equal(await bench.backend.cancel(ids['top'] as string, 'user', ''), 'cancelled')
    for (const name of ['top', 'waiting', 'middle', 'leaf']) await bench.isCancelled(t, ids[name] as string, { reason: 'user' })
    t.strictSame(bench.told().sort(), ['cancelled leaf', 'cancelled middle', 'cancelled waiting'])
    await bench.settle(running, completed)
    await bench.rest()
    t.equal((await bench.read(ids['running'] as string)).state, 'completed')
    t.equal(bench.delivered.length, 1)
    t.strictSame({ ...bench.backend.load('default') }, { jobs: 0, bytes: 0 })
  }, needs)

  promise('a child that is cancelled fails its parent', async (t, bench) => {
    const ids = await put(bench, { name: 'parent', children: [{ name: 'a' }, { name: 'b' }] })
    await bench.backend.cancel(ids['a'] as string, 'user', '')
    t.match(await bench.read(ids['parent'] as string), { state: 'failed', error: { code: 'FST_BG_CHILD_FAILED' } })
  }, needs)

  promise('the results of children are there although the children are forgotten', async (t, bench) => {
    bench.backend.want('default', 1)
    const ids = await put(bench, { name: 'parent', children: [{ name: 'a' }, { name: 'b' }] })
    await bench.settle(await bench.take(), withResult('of a'))
    await bench.settle(await bench.take(), withResult('of b'))
    const parent = await bench.take()
    await bench.rest()
    t.strictSame(await bench.states([ids['a'] as string, ids['b'] as string]), [undefined, undefined])
    t.strictSame(shown(parent.children), [['a', 'completed', 'of a'], ['b', 'completed', 'of b']])
  }, { ...needs, retention: { completed: { count: 0, age: 3_600_000 }, failed: { count: 9, age: 3_600_000 } } })

  promise('a dead child that is retried does not count twice', async (t, bench) => {
    bench.backend.want('default', 1)
    const ids = await put(bench, { name: 'parent', children: [{ name: 'a', ignored: true }, { name: 'b' }] })
    await bench.settle(await bench.take(), dead)
    const b = await bench.take()
    await bench.backend.retry([ids['a'] as string], 0)
    await bench.settle(b, retryIn(0))
    const next = [await bench.take()]
    if (next[0]?.job.name === 'b') await bench.settle(next[0], retryIn(100))
    const again = next[0]?.job.name === 'a' ? next[0] : await bench.take()
    await bench.settle(again, completed)
    t.equal((await bench.read(ids['parent'] as string)).state, 'waiting-children')
  }, needs)

  promise('a parent that failed for a child can be retried, and runs then', async (t, bench) => {
    bench.backend.want('default', 1)
    const ids = await put(bench, { name: 'parent', children: [{ name: 'a' }] })
    await bench.settle(await bench.take(), dead)
    await bench.until(() => bench.told().length === 1, 'the end of the parent')
    t.equal(await bench.backend.retry([ids['parent'] as string], 0), 1)
    const parent = await bench.take()
    t.equal(parent.job.name, 'parent')
    t.match(parent.children, [{ name: 'a', state: 'failed' }])
  }, needs)

  promise('a dead parent that is removed takes no child with it', async (t, bench) => {
    bench.backend.want('default', 1)
    const ids = await put(bench, { name: 'parent', children: [{ name: 'a' }, { name: 'b', queue: 'other' }] })
    await bench.settle(await bench.take(), dead)
    await bench.until(() => bench.told().length === 1, 'the end of the parent')
    t.equal(await bench.backend.remove([ids['parent'] as string]), 1)
    t.strictSame(await bench.states([ids['parent'] as string, ids['a'] as string, ids['b'] as string]), [undefined, 'failed', 'waiting'])
  }, needs)

  promise('a dead parent that leaves because of the retention takes no child with it', async (t, bench) => {
    bench.backend.want('default', 1)
    const ids = await put(bench, { name: 'parent', children: [{ name: 'a' }, { name: 'b', queue: 'other' }] })
    await bench.settle(await bench.take(), dead)
    await bench.until(() => bench.told().includes('child-failed parent'), 'the end of the parent')
    for (let n = 0; n < 3; n++) await bench.end(dead)
    await bench.until(() => bench.told().includes('evicted parent'), 'the parent to leave')
    t.equal((await bench.read(ids['b'] as string)).state, 'waiting')
  }, { ...needs, retention: { completed: { count: 9, age: 3_600_000 }, failed: { count: 2, age: 3_600_000 } } })

  promise('a parent that waits longer than its ttl expires', async (t, bench) => {
    bench.backend.want('default', 1)
    const ids = await put(bench, { name: 'parent', ttl: 200, children: [{ name: 'a' }] })
    const a = await bench.take()
    await bench.pass(250)
    t.match(await bench.read(ids['parent'] as string), { state: 'failed', failure: 'expired' })
    await bench.settle(a, completed)
    await bench.rest()
    t.equal(bench.delivered.length, 1)
  }, needs)

  promise('a parent whose own delay is not over waits for that too', async (t, bench) => {
    bench.backend.want('default', 1)
    const ids = await put(bench, { name: 'parent', delay: 2_500, children: [{ name: 'a' }] })
    await bench.settle(await bench.take(), completed)
    await bench.rest()
    t.equal((await bench.read(ids['parent'] as string)).state, 'delayed')
    await bench.pass(2_501)
    t.equal((await bench.take()).job.name, 'parent')
  }, needs)

  promise('the jobs of a flow are added all or none', async (t, bench) => {
    await t.rejects(put(bench, { name: 'parent', children: [{ name: 'a' }, { name: 'b', queue: 'no such queue' }] }))
    t.match((await bench.backend.counts()).default, { 'waiting-children': 0, waiting: 0 })
    t.strictSame({ ...bench.backend.load('default') }, { jobs: 0, bytes: 0 })
  }, needs)
}
