/** Groups, as every backend that has them keeps them. */
import type { Attempt } from '../../../lib/job.ts'
import { completed, retryIn, type Bench, type JobParts, type Promises } from '../contract.ts'

const of = (group: string, count: number, more: JobParts = {}): JobParts[] =>
  Array.from({ length: count }, (_, n) => ({ ...more, group, name: `${group}${n + 1}` }))

/** Runs what waits, one job at a time. */
async function runOneByOne (bench: Bench, jobs: number): Promise<void> {
  for (let n = 0; n < jobs; n++) await bench.settle(await bench.take(), completed)
}

export function groupsContract (promise: Promises): void {
  promise('groups take turns, whoever came first', async (t, bench) => {
    await bench.enqueue(...of('a', 4), ...of('b', 2), ...of('c', 1))
    bench.backend.want('default', 1)
    await runOneByOne(bench, 7)
    t.strictSame(bench.names(), ['a1', 'b1', 'c1', 'a2', 'b2', 'a3', 'a4'])
  }, { needs: 'groups' })

  promise('what is delivered together is shared out too', async (t, bench) => {
    await bench.enqueue(...of('a', 9), ...of('b', 2), { name: 'x1' }, { name: 'x2' })
    bench.backend.want('default', 6)
    await bench.deliveries(6)
    t.strictSame(bench.names().sort(), ['a1', 'a2', 'b1', 'b2', 'x1', 'x2'])
  }, { needs: 'groups' })

  promise('the jobs without a group take turns as if they were one', async (t, bench) => {
    await bench.enqueue({ name: 'x1' }, { name: 'x2' }, { name: 'x3' }, ...of('a', 2))
    bench.backend.want('default', 1)
    await runOneByOne(bench, 5)
    t.strictSame(bench.names(), ['x1', 'a1', 'x2', 'a2', 'x3'])
  }, { needs: 'groups' })

  promise('a tenant with 10 000 jobs does not hold up one with a single job', async (t, bench) => {
    bench.backend.want('default', 2)
    await bench.backend.enqueue(of('big', 10_000).map((parts) => bench.job(parts)), false)
    const running = [await bench.take(), await bench.take()]
    await bench.enqueue(...of('small', 1))
    for (const attempt of running) await bench.settle(attempt, completed)
    await bench.deliveries(4)
    t.ok(bench.names().slice(0, 4).includes('small1'), bench.names().join())
    t.equal((await bench.backend.counts()).default?.waiting, 9_997)
  }, { needs: 'groups' })

  promise('a priority counts within its group', async (t, bench) => {
    await bench.enqueue(...of('a', 2), { group: 'a', name: 'a high', priority: 5 }, ...of('b', 2))
    bench.backend.want('default', 1)
    await runOneByOne(bench, 5)
    t.strictSame(bench.names(), ['a high', 'b1', 'a1', 'b2', 'a2'])
  }, { needs: 'groups' })

  promise('a group that comes again goes to the end', async (t, bench) => {
    bench.backend.want('default', 1)
    await bench.enqueue(...of('a', 1), ...of('b', 3))
    await runOneByOne(bench, 1)
    await bench.enqueue({ group: 'a', name: 'a2' }, ...of('c', 1))
    await runOneByOne(bench, 5)
    t.strictSame(bench.names(), ['a1', 'b1', 'b2', 'a2', 'c1', 'b3'])
  }, { needs: 'groups' })

  promise('a group has at most so many attempts unsettled', async (t, bench) => {
    bench.backend.want('default', 9)
    await bench.enqueue(...of('a', 4), ...of('b', 1))
    await bench.deliveries(3)
    t.strictSame(bench.names().sort(), ['a1', 'a2', 'b1'])
    t.equal((await bench.backend.counts()).default?.waiting, 2)
    const [first] = bench.delivered.filter(({ job }) => job.policy.group === 'a') as [Attempt]
    await bench.settle(first, retryIn(300))
    await bench.deliveries(4)
    t.equal(bench.names()[3], 'a3', 'a retry waits outside of it')
    for (const attempt of bench.delivered.slice(1)) await bench.settle(attempt, completed)
    await bench.deliveries(5)
    await bench.pass(301)
    await bench.deliveries(6)
    t.equal((await bench.backend.counts()).default?.active, 2)
  }, { needs: 'groups', queues: { default: { limiter: undefined, groups: { concurrency: 2, limiter: undefined } } } })

  promise('a job that its group holds back can be cancelled', async (t, bench) => {
    bench.backend.want('default', 9)
    const ids = await bench.enqueue(...of('a', 3))
    const first = await bench.take()
    t.equal(await bench.backend.cancel(ids[1] as string, 'user', ''), 'cancelled')
    await bench.settle(first, completed)
    t.equal((await bench.take()).job.id, ids[2])
    await bench.rest()
    t.equal(bench.delivered.length, 2)
  }, { needs: 'groups', queues: { default: { limiter: undefined, groups: { concurrency: 1, limiter: undefined } } } })

  promise('each group has a limiter of its own', async (t, bench) => {
    bench.backend.want('default', 9)
    const ids = await bench.enqueue(...of('a', 3), ...of('b', 1))
    await bench.deliveries(3)
    t.strictSame(bench.names().sort(), ['a1', 'a2', 'b1'])
    for (const attempt of bench.delivered) {
      await bench.backend.note(attempt, { started: true })
      await bench.settle(attempt, completed)
    }
    await bench.rest()
    t.match(await bench.read(ids[2] as string), { state: 'delayed', delayReason: 'rate-limit', retryAt: String })
    t.match((await bench.backend.counts()).default, { waiting: 0, delayed: 1, limited: 1 })
    await bench.pass(400)
    t.equal(bench.delivered.length, 3)
    await bench.pass(201)
    await bench.deliveries(4)
    t.equal(bench.names()[3], 'a3')
  }, { needs: 'groups', queues: { default: { limiter: undefined, groups: { concurrency: Infinity, limiter: { max: 2, duration: 600 } } } } })
}
