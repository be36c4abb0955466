/** Our queues in bull-board: its own routes, asked as its page asks them. The page itself is seen in test/proof/browser.proof.ts. */
import { spawnSync } from 'node:child_process'
import Fastify, { type FastifyRequest } from 'fastify'
import t from 'tap'
import { bullBoard, type BullBoardOptions } from '../../lib/bull-board/index.ts'
import type { Action, Backend, JobRecord } from '../../lib/index.ts'
import { DurableBackend } from '../support/durable.ts'
import { setup, type Harness, type HarnessOptions } from '../support/harness.ts'

type TestLike = Parameters<typeof setup>[0]

interface Board extends Harness {
  asked: Array<{ action: Action, job: JobRecord | undefined }>
  world: { broken: boolean }
  call: (method: string, url: string, headers?: Record<string, string>) => Promise<{ status: number, body: any, text: string }>
  /** What the list of a queue shows. */
  shown: (status?: string) => Promise<any>
  die: (payload?: unknown) => Promise<string>
}

async function board (t: TestLike, options: Partial<BullBoardOptions> = {}, plugin: HarnessOptions = {}): Promise<Board> {
  const asked: Board['asked'] = []
  const world = { broken: true }
  const harness = await setup(t, { queues: { mail: {} }, ...plugin })
  const { app, background, clock } = harness
  background.define('task', (payload) => payload)
  background.define('bad', { attempts: 1 }, (payload) => { if (world.broken) throw new RangeError('no order'); return payload })
  const authorize = (request: FastifyRequest, action: Action, job?: JobRecord): boolean => {
    asked.push({ action, job })
    if (request.headers['x-key'] !== 'secret') return false
    const tenant = request.headers['x-tenant']
    return tenant === undefined || job === undefined || (job.payload as { tenant?: string } | null)?.tenant === tenant
  }
  await app.register(bullBoard, { prefix: '/board', authorize, ...options })
  await app.ready()
  const call: Board['call'] = async (method, url, headers = {}) => {
    const response = await app.inject({ method: method as 'GET', url: `/board${url}`, headers: { 'x-key': 'secret', ...headers } })
    const json = String(response.headers['content-type']).includes('json') && response.body !== ''
    return { status: response.statusCode, body: json ? response.json() : undefined, text: response.body }
  }
  return Object.assign(harness, {
    asked, world, call,
    shown: async (status = 'latest') => (await call('GET', `/api/queues?activeQueue=default&status=${status}&page=1&jobsPerPage=10`)).body.queues.find((queue: { name: string }) => queue.name === 'default'),
    die: async (payload: unknown = null) => {
      const { id } = await background.add('bad', payload)
      await clock.settle()
      return id
    }
  })
}

t.test('it does not register without authorize, without the plugin, or with a wrong option', async (t) => {
  const { app } = await setup(t)
  await t.rejects(async () => { await app.register(bullBoard, {} as BullBoardOptions) }, { code: 'FST_BG_AUTHORIZE_REQUIRED' })
  const bare = Fastify()
  t.teardown(() => bare.close())
  await t.rejects(async () => { await bare.register(bullBoard, { authorize: () => true }) }, { code: 'FST_BG_NOT_READY' })
  for (const options of [{ authorize: true }, { redact: ['password'] }, { readOnly: 1 }]) {
    const { app: other } = await setup(t)
    await t.rejects(async () => { await other.register(bullBoard, { authorize: () => true, ...options } as never) }, { code: 'FST_BG_BAD_OPTION' })
  }
  const { app: misspelt } = await setup(t)
  await t.rejects(async () => { await misspelt.register(bullBoard, { authorize: () => true, readonly: true } as never) }, { code: 'FST_BG_UNKNOWN_OPTION' })
})

t.test('nothing of it is there for who has no key, page and files included', async (t) => {
  const { call, asked, die, background } = await board(t)
  const id = await die()
  const none = { 'x-key': 'wrong' }
  for (const url of ['/', '/queue/default', '/static/images/logo.svg', '/api/queues?page=1']) t.equal((await call('GET', url, none)).status, 403, url)
  t.same(new Set(asked.map(({ action }) => action)), new Set(['list']))
  for (const url of [`/api/queues/default/${id}`, `/queue/default/${id}`]) {
    const { status, text } = await call('GET', url, none)
    t.ok(status === 404 || (status === 200 && !text.includes('no order')), `${url}: the empty page at most`)
  }
  for (const [verb, action] of [['pause', 'pause'], ['resume', 'resume'], ['retry/failed', 'retry'], ['promote', 'retry'], ['clean/failed', 'remove'], ['empty', 'cancel']] as const) {
    asked.length = 0
    t.equal((await call('PUT', `/api/queues/default/${verb}`, none)).status, 403, verb)
    t.match(asked, [{ action, job: undefined }])
  }
  for (const verb of ['retry', 'clean', 'promote']) t.equal((await call('PUT', `/api/queues/default/${id}/${verb}`, none)).status, 404, verb)
  t.equal((await background.get(id))?.state, 'failed')
  t.equal((await background.counts())['default']?.paused, false)
})

t.test('a page of another site changes nothing', async (t) => {
  const { call, die, background, asked } = await board(t)
  const id = await die()
  for (const site of ['cross-site', 'same-site']) {
    for (const url of [`/api/queues/default/${id}/retry`, '/api/queues/default/pause', '/api/queues/pause']) {
      t.equal((await call('PUT', url, { 'sec-fetch-site': site })).status, 403)
    }
  }
  t.same(asked, [])
  t.equal((await background.get(id))?.state, 'failed')
})

t.test('the page comes with its files, and its queues with their counts', async (t) => {
  const { call, shown, die, background, clock } = await board(t)
  const { text } = await call('GET', '/')
  t.match(text, /<base href="\/board\/"/)
  t.equal((await call('GET', '/static/images/logo.svg')).status, 200)
  await die()
  await background.add('task', 1)
  await background.add('task', 2, { delay: 60_000 })
  await clock.settle()
  const { id: gone } = await background.add('task', 3, { delay: 60_000 })
  await background.cancel(gone)
  t.match((await call('GET', '/api/queues?page=1')).body.queues.map((queue: { name: string }) => queue.name).sort(), ['default', 'mail'])
  const queue = await shown()
  t.match(queue, { counts: { failed: 1, completed: 2, delayed: 1, active: 0, waiting: 0 }, isPaused: false, readOnlyMode: false })
  t.same(queue.jobs.map((job: { name: string }) => job.name), ['task', 'task', 'task', 'bad'], 'the newest first')
  t.match((await shown('failed')).jobs, [{ name: 'bad', isFailed: true, failedReason: 'RangeError: no order', attempts: 1 }])
  t.match((await shown('completed')).jobs, [{ failedReason: 'cancelled: user' }, { returnValue: 1 }])
})

t.test('payloads are hidden, or redacted', async (t) => {
  for (const [redact, data] of [[undefined, 'hidden: see the option redact'], [['payload.password'], { password: '[REDACTED]', kept: 1 }]] as const) {
    const { call, die, shown } = await board(t, redact === undefined ? {} : { redact })
    const id = await die({ password: 'hunter2', kept: 1 })
    t.same((await shown('failed')).jobs[0].data, data)
    const one = await call('GET', `/api/queues/default/${id}`)
    t.same(one.body.job.data, data)
    t.notMatch(one.text, /hunter2/)
  }
})

t.test('a job in detail: state, stack, progress, and what happened to it', async (t) => {
  const { call, die, background, clock } = await board(t)
  const id = await die()
  t.match((await call('GET', `/api/queues/default/${id}`)).body, { status: 'failed', job: { id, stacktrace: [/RangeError: no order\n +at /], opts: { attempts: 1 } } })
  t.match(await call('GET', `/api/queues/default/${id}/flow`), { status: 200, body: { isFlowNode: false } }, 'the page asks for it with each job')
  t.match((await call('GET', `/api/queues/default/${id}/logs`)).body, [/made/, /attempt 1 failed: RangeError: no order/, /failed: exhausted/])
  const { id: running } = await background.add(({ progress, signal }) => { progress({ percent: 40 }); return new Promise((_resolve, reject) => { signal.onabort = () => { reject(new Error('aborted')) } }) })
  await clock.settle()
  t.match((await call('GET', `/api/queues/default/${running}`)).body, { status: 'active', job: { progress: { percent: 40 } } })
  t.equal((await call('PUT', `/api/queues/default/${running}/clean`)).status, 409, 'it runs')
  await background.cancel(running)
})

t.test('retry, promote, clean and pause', async (t) => {
  const { call, die, background, clock, world } = await board(t)
  const [first, second] = [await die(), await die()]
  world.broken = false
  t.equal((await call('PUT', `/api/queues/default/${first}/retry`)).status, 204)
  await clock.settle()
  t.equal((await background.get(first))?.state, 'completed')
  t.match(await call('PUT', '/api/queues/default/retry/failed'), { status: 200, body: { retried: 1 } })
  await clock.settle()
  t.equal((await background.get(second))?.state, 'completed')

  const { id: later } = await background.add('task', 'later', { delay: 60_000 })
  t.equal((await call('PUT', `/api/queues/default/${later}/promote`)).status, 204)
  await clock.settle()
  t.equal((await background.get(later))?.state, 'completed')
  const { id: another } = await background.add('task', 'later', { delay: 60_000 })
  t.equal((await call('PUT', '/api/queues/default/promote')).status, 200)
  await clock.settle()
  t.equal((await background.get(another))?.state, 'completed')

  t.equal((await call('PUT', '/api/queues/default/pause')).status, 200)
  const { id: waiting } = await background.add('task')
  await clock.settle()
  t.equal((await background.get(waiting))?.state, 'waiting')
  t.equal((await call('PUT', `/api/queues/default/${waiting}/clean`)).status, 204)
  t.match(await background.get(waiting), { state: 'cancelled', reason: 'user' })
  const { id: emptied } = await background.add('task')
  t.equal((await call('PUT', '/api/queues/default/empty')).status, 200)
  t.equal((await background.get(emptied))?.state, 'cancelled')
  t.equal((await call('PUT', '/api/queues/default/resume')).status, 200)
  t.equal((await background.counts())['default']?.paused, false)

  t.equal((await call('PUT', `/api/queues/default/${first}/clean`)).status, 204)
  t.equal(await background.get(first), undefined)
  t.equal((await call('PUT', '/api/queues/default/clean/completed')).status, 200)
  t.match(await background.counts(), { default: { completed: 0, cancelled: 0 } })
})

t.test('a status that jobs cannot have is refused, and nothing is cleaned', async (t) => {
  const { call, die, background } = await board(t)
  const id = await die()
  for (const status of ['__proto__', 'constructor', 'toString', 'paused', 'nothing', 'FAILED']) {
    const { status: code, body } = await call('PUT', `/api/queues/default/clean/${status}`)
    t.equal(code, 400, status)
    t.match(body.message, /status: expected active, waiting, /)
  }
  t.equal((await background.get(id))?.state, 'failed')
})

t.test('a tenant sees and changes its own jobs alone', async (t) => {
  const { call, die, background, world } = await board(t)
  const [mine, foreign] = [await die({ tenant: 'a' }), await die({ tenant: 'b' })]
  const as = { 'x-tenant': 'a' }
  const { body } = await call('GET', '/api/queues?activeQueue=default&status=failed&page=1&jobsPerPage=10', as)
  t.same(body.queues.find((queue: { name: string }) => queue.name === 'default').jobs.map((job: { id: string }) => job.id), [mine])
  for (const [method, url] of [['GET', ''], ['PUT', '/retry'], ['PUT', '/clean']] as const) t.equal((await call(method, `/api/queues/default/${foreign}${url}`, as)).status, 404)
  t.same((await call('GET', `/api/queues/default/${foreign}/logs`, as)).body, [])
  world.broken = false
  await call('PUT', '/api/queues/default/retry/failed', as)
  await call('PUT', '/api/queues/default/clean/failed', as)
  t.equal((await background.get(foreign))?.state, 'failed')
})

t.test('read-only: everything is shown, and nothing can be changed', async (t) => {
  const { call, die, shown, background } = await board(t, { readOnly: true })
  const id = await die()
  t.match(await shown('failed'), { readOnlyMode: true, jobs: { length: 1 } })
  for (const url of [`/${id}/retry`, `/${id}/clean`, '/retry/failed', '/clean/failed', '/pause', '/empty', '/promote']) t.equal((await call('PUT', `/api/queues/default${url}`)).status, 405, url)
  t.equal((await call('PUT', '/api/queues/pause')).status, 405)
  t.equal((await background.get(id))?.state, 'failed')
})

t.test('what background jobs have not is refused, asked of nobody', async (t) => {
  const { call, die, asked } = await board(t)
  const id = await die()
  for (const [method, url] of [['PUT', 'obliterate'], ['PUT', 'concurrency'], ['PUT', 'rate-limit'], ['PATCH', `${id}/update-data`], ['PATCH', `${id}/delay`], ['PATCH', `${id}/priority`], ['PUT', 'job-schedulers/x/run']] as const) {
    t.equal((await call(method, `/api/queues/default/${url}`)).status, 405, url)
  }
  t.equal((await call('POST', '/api/queues/default/add', { 'content-type': 'application/json' })).status, 405)
  t.same(asked, [])
})

t.test('it works over a durable backend, and one that cannot promote says so', async (t) => {
  const backend: Backend = new DurableBackend()
  const { call, background } = await board(t, {}, { backend })
  const { id } = await background.add('task', 'x', { delay: 60_000 })
  t.match((await call('GET', `/api/queues/default/${id}`)).body, { status: 'delayed' })
  const { status, body } = await call('PUT', `/api/queues/default/${id}/promote`)
  t.equal(status, 500)
  t.match(body.message, /promoting a delayed job is not supported by the backend "durable"/)
})

t.test('a page asks for the jobs that it shows, and for one more', async (t) => {
  const limits: number[] = []
  const backend = new DurableBackend()
  const list = backend.list.bind(backend)
  backend.list = (query) => {
    limits.push(query.limit)
    return list(query)
  }
  const { background, shown } = await board(t, {}, { backend })
  for (let n = 0; n < 15; n++) await background.add('task', n, { delay: 60_000 })
  t.equal((await shown('delayed')).jobs.length, 10)
  t.strictSame(limits, [11])
})

t.test('without its packages it says what to install, and nothing else needs them', (t) => {
  const url = (code: string): string => `data:text/javascript,${encodeURIComponent(code)}`
  const hide = url(`export function resolve (name, context, next) {
    if (name.startsWith('@bull-board/')) throw Object.assign(new Error('not there'), { code: 'ERR_MODULE_NOT_FOUND' })
    return next(name, context)
  }`)
  const program = `import Fastify from 'fastify'
    import { backgroundTasks } from 'fastify-background-tasks'
    import { bullBoard } from 'fastify-background-tasks/bull-board'
    const app = Fastify()
    await app.register(backgroundTasks)
    await app.register(bullBoard, { authorize: () => true }).then(() => {}, ({ code, message }) => { console.log(code, message) })`
  const { stdout } = spawnSync(process.execPath, ['--import', url(`import { register } from 'node:module'; register(${JSON.stringify(hide)})`), '--input-type=module', '-e', program], { encoding: 'utf8', timeout: 30_000 })
  t.match(stdout, /^FST_BG_PEER_MISSING bullBoard needs packages that are not installed: npm install @bull-board\/api @bull-board\/fastify/)
  t.end()
})
