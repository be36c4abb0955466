/** Several processes on one store; for both stores. */
import t, { type Test } from 'tap'
import { startServer, type Kind } from '../../support/servers/find.ts'
import { appOn, WorkerProcess, type Where } from './cluster.ts'
import { newSpace } from './store.ts'

export async function processesOn (kind: Kind): Promise<void> {
  const found = await startServer(kind)
  if (typeof found === 'string') {
    t.plan(0, found)
    return
  }
  t.teardown(found.release)
  const place = (more: Partial<Where> = {}): Where => ({ kind: kind.name, url: found.url, space: newSpace(), ...more })

  async function producer (t: Test, where: Where) {
    const { app } = await appOn(where, { role: 'producer' })
    const work = app.background.define<{ ms: number }, { by: number }>('work', async () => { throw new Error('a producer does not work') })
    t.teardown(() => app.close())
    await app.ready()
    return { app, work }
  }

  async function workers (t: Test, where: Where, count: number): Promise<WorkerProcess[]> {
    const all = Array.from({ length: count }, () => new WorkerProcess(where))
    t.teardown(async () => { for (const worker of all) await worker.kill() })
    for (const worker of all) await worker.until('ready')
    return all
  }

  t.test('three workers share the jobs of a producer, each job is done once, and any process answers', async (t) => {
    const where = place()
    const { app, work } = await producer(t, where)
    const all = await workers(t, where, 3)
    const handles = await app.background.addBulk(Array.from({ length: 60 }, () => ({ name: work, payload: { ms: 20 } })))
    const results = await Promise.all(handles.map((handle) => handle.finished({ timeout: 20_000 }) as Promise<{ by: number }>))
    t.equal(new Set(results.map(({ by }) => by)).size, 3, 'each worker did some')
    const started = all.flatMap(({ told }) => told.filter(({ what }) => what === 'started').map(({ id }) => id))
    t.strictSame(started.sort(), handles.map(({ id }) => id).sort(), 'each job started once')
    const answer = await app.inject(`/jobs/${handles[0]?.id}/status`)
    t.match(answer.json(), { state: 'completed', result: { by: Number } })
    for (const worker of all) await worker.close()
  })

  t.test('a job that runs in another process can be cancelled', async (t) => {
    const where = place()
    const { app, work } = await producer(t, where)
    const [worker] = await workers(t, where, 1) as [WorkerProcess]
    const handle = await app.background.add(work, { ms: 20_000 })
    await worker.until('started')
    t.equal((await app.inject(`/jobs/${handle.id}/status`)).json().state, 'active')
    t.equal(await app.background.cancel(handle.id), 'cancelling')
    await worker.until('aborted', handle.id)
    await t.rejects(handle.finished({ timeout: 10_000 }), { code: 'FST_BG_JOB_NOT_FOUND' }, 'cancelled jobs are not kept')
  })

  t.test('the job of a worker that was killed is done by another one', async (t) => {
    const where = place({ lockDuration: 1_000 })
    const { app, work } = await producer(t, where)
    const [first, second] = await workers(t, where, 2) as [WorkerProcess, WorkerProcess]
    first.pause()
    second.pause()
    const handle = await app.background.add(work, { ms: 300 })
    first.resume()
    await first.until('started')
    await first.kill()
    second.resume()
    const { by } = await handle.finished({ timeout: 20_000 })
    t.equal(by, second.child.pid)
    t.equal((await app.background.get(handle.id))?.state, 'completed')
  })

  t.test('a worker that slept through its lock does not end the job that another one has', async (t) => {
    const where = place({ lockDuration: 1_000 })
    const { app, work } = await producer(t, where)
    const [first, second] = await workers(t, where, 2) as [WorkerProcess, WorkerProcess]
    second.pause()
    const handle = await app.background.add(work, { ms: 500 })
    await first.until('started')
    first.pause()
    second.resume()
    await second.until('started', handle.id)
    first.resume()
    const { by } = await handle.finished({ timeout: 20_000 })
    await first.until('ended', handle.id)
    await second.until('ended', handle.id)
    t.equal(by, second.child.pid, 'the result is that of who had the lock')
    const record = await app.background.get(handle.id)
    t.match(record, { state: 'completed', result: { by: second.child.pid } })
  })
}
