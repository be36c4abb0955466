/** The routes that list and steer, as contract section 4 has them: each door without a key, from another site, with a foreign job. */
import t from 'tap'
import Fastify, { type FastifyRequest } from 'fastify'
import { backgroundTasks, memory, type Action, type JobRecord } from '../../lib/index.ts'
import { TestClock } from '../support/clock.ts'
import { setup, type Harness, type HarnessOptions } from '../support/harness.ts'
import { open, site } from '../support/http.ts'
import { watchLeaks } from '../support/leaks.ts'

watchLeaks(t)

type TestLike = Parameters<typeof setup>[0]
type Method = 'GET' | 'POST' | 'DELETE'
const unknownId = '01890000-0000-7000-8000-000000000000'
const json = { 'content-type': 'application/json' }

interface Asked { action: Action, job: JobRecord | undefined }

interface Admin extends Harness {
  asked: Asked[]
  call: (method: Method, url: string, body?: unknown, headers?: Record<string, string>) => Promise<{ status: number, body: any, headers: Record<string, unknown> }>
  world: { broken: boolean }
  /** A dead letter of `bad`. */
  die: (payload?: unknown, task?: string) => Promise<string>
}

/** Who has the key may do everything; with `x-tenant`, everything with jobs whose payload names that tenant. */
const authorize = (asked: Asked[]) => (request: FastifyRequest, action: Action, job?: JobRecord): boolean => {
  asked.push({ action, job })
  if (request.headers['x-key'] !== 'secret') return false
  const tenant = request.headers['x-tenant']
  return tenant === undefined || job === undefined || (job.payload as { tenant?: string } | null)?.tenant === tenant
}

async function admin (t: TestLike, options: HarnessOptions = {}): Promise<Admin> {
  const asked: Asked[] = []
  const world = { broken: true }
  const harness = await setup(t, { authorize: authorize(asked), ...options, routes: { admin: true, ...options.routes as object } })
  const { background } = harness
  background.define('task', (payload) => payload)
  const fails = (payload: unknown): unknown => {
    if (world.broken) throw Object.assign(new TypeError(`no order ${JSON.stringify(payload)}`), { code: 'E_ORDER' })
    return payload
  }
  background.define('bad', { attempts: 1 }, fails)
  background.define('strict', { attempts: 1, schema: { type: 'object', required: ['n'], additionalProperties: false, properties: { n: { type: 'integer', minimum: 1 }, tenant: { type: 'string' } } } }, fails)
  await harness.app.ready()
  return Object.assign(harness, {
    asked,
    world,
    async call (method: Method, url: string, body?: unknown, headers: Record<string, string> = {}) {
      const payload = typeof body === 'string' || body === undefined ? body : JSON.stringify(body)
      const given = { 'x-key': 'secret', ...(method === 'POST' ? json : {}), ...headers }
      const response = await harness.app.inject({ method, url, headers: given, ...(payload === undefined ? {} : { payload }) })
      return { status: response.statusCode, body: response.body === '' ? undefined : response.json(), headers: response.headers }
    },
    async die (payload: unknown = null, task = 'bad') {
      const { id } = await background.add(task, payload)
      await harness.clock.settle()
      return id
    }
  })
}

const doors: Array<[method: Method, url: string, action: Action]> = [
  ['GET', '/jobs', 'list'],
  ['GET', '/jobs/dead', 'list'],
  ['GET', '/jobs/dead/groups', 'list'],
  ['POST', '/jobs/dead/retry', 'retry'],
  ['POST', '/jobs/ID/retry', 'retry'],
  ['DELETE', '/jobs/ID', 'cancel'],
  ['POST', '/queues/default/pause', 'pause'],
  ['POST', '/queues/default/resume', 'resume'],
  ['GET', '/jobs/schedules', 'list']
]

t.test('the doors', async (t) => {
  t.test('without routes.admin there are none', async (t) => {
    const { app, background } = await setup(t, { authorize: () => true })
    background.define('task', () => {})
    await app.ready()
    const { id } = await background.add('task', null, { delay: 1_000 })
    for (const [method, url] of doors) t.equal((await app.inject({ method, url: url.replace('ID', id), headers: json, payload: '{}' })).statusCode, 404, url)
    t.equal((await background.get(id))?.state, 'delayed')
  })

  t.test('routes.admin without authorize fails at boot', async (t) => {
    const app = Fastify()
    await t.rejects(async () => { await app.register(backgroundTasks, { routes: { admin: true } }) }, { code: 'FST_BG_AUTHORIZE_REQUIRED', message: /routes\.admin/ })
  })

  for (const [method, path, action] of doors) {
    const url = (id: string): string => path.replace('ID', id)
    const onOne = path.includes('ID')

    t.test(`${method} ${path} without a key is refused, asked as ${action}, and nothing changes`, async (t) => {
      const { call, die, asked, background } = await admin(t)
      const id = action === 'cancel' ? (await background.add('task', { tenant: 'a' }, { delay: 1_000 })).id : await die({ tenant: 'a' })
      const before = await background.get(id)
      const { status, body } = await call(method, url(id), method === 'POST' ? {} : undefined, { 'x-key': 'wrong' })
      t.equal(status, onOne ? 404 : 403)
      t.match(body, { code: onOne ? 'FST_BG_JOB_NOT_FOUND' : 'FST_BG_FORBIDDEN' })
      t.match(asked, [{ action, job: onOne ? { id, payload: { tenant: 'a' } } : undefined }])
      t.equal(asked.length, 1)
      t.same(await background.get(id), before)
      t.equal((await background.counts())['default']?.paused, false)
    })

    if (onOne) {
      t.test(`${method} ${path} of a foreign job answers as of an unknown one`, async (t) => {
        const { call, die, background } = await admin(t)
        const id = action === 'cancel' ? (await background.add('task', { tenant: 'a' }, { delay: 1_000 })).id : await die({ tenant: 'a' })
        const before = await background.get(id)
        const foreign = await call(method, url(id), method === 'POST' ? {} : undefined, { 'x-tenant': 'b' })
        t.same(foreign, { ...await call(method, url(unknownId), method === 'POST' ? {} : undefined), headers: foreign.headers })
        t.same(await background.get(id), before)
        t.equal((await call(method, url(id), method === 'POST' ? {} : undefined, { 'x-tenant': 'a' })).status, 200)
      })
    }

    t.test(`${method} ${path}: what authorize throws goes to the application`, async (t) => {
      const { call, die } = await admin(t, { authorize: () => { throw Object.assign(new Error('who are you'), { statusCode: 401, code: 'WHO' }) } })
      const { status, body } = await call(method, url(await die()), method === 'POST' ? {} : undefined)
      t.equal(status, 401)
      t.match(body, { code: 'WHO' })
    })

    if (method === 'GET') continue
    for (const site of ['cross-site', 'same-site', 'nonsense']) {
      t.test(`${method} ${path} from a page of another site (${site}) is refused before anybody is asked`, async (t) => {
        const { call, die, asked, background } = await admin(t)
        const id = await die()
        const { status, body } = await call(method, url(id), method === 'POST' ? {} : undefined, { 'sec-fetch-site': site })
        t.equal(status, 403)
        t.match(body, { code: 'FST_BG_CROSS_SITE' })
        t.same(asked, [])
        t.equal((await background.get(id))?.state, 'failed')
      })
    }

    t.test(`${method} ${path} from a page of ours, or typed in, passes`, async (t) => {
      for (const site of ['same-origin', 'none']) {
        const { call, die, background } = await admin(t)
        const id = action === 'cancel' ? (await background.add('task', null, { delay: 1_000 })).id : await die()
        t.equal((await call(method, url(id), method === 'POST' ? {} : undefined, { 'sec-fetch-site': site })).status, 200)
      }
    })

    if (method === 'DELETE') continue
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', 'application/jsonp', '']) {
      t.test(`${method} ${path} as "${type}", as forms and scripts of other sites can send it, is refused`, async (t) => {
        const { app, die, background } = await admin(t)
        const id = await die()
        const response = await app.inject({ method, url: url(id), headers: { 'x-key': 'secret', ...(type === '' ? {} : { 'content-type': type }) }, ...(type === '' ? {} : { payload: '{}' }) })
        t.equal(response.statusCode, 415)
        t.match(response.json(), { code: 'FST_BG_NOT_JSON' })
        t.equal((await background.get(id))?.state, 'failed')
        t.equal((await background.counts())['default']?.paused, false)
      })
    }

    t.test(`${method} ${path} with unknown wishes is refused, and nothing changes`, async (t) => {
      const { call, die, background } = await admin(t)
      const id = await die()
      for (const body of [{ tsak: 'bad' }, [], '"x"', '5', '{']) t.equal((await call(method, url(id), body)).status, 400)
      t.equal((await background.get(id))?.state, 'failed')
      t.equal((await background.counts())['default']?.paused, false)
    })
  }

  t.test('GET changes nothing, whatever the path', async (t) => {
    const { call, die } = await admin(t)
    const id = await die()
    for (const [method, url] of doors) if (method !== 'GET') t.equal((await call('GET', url.replace('ID', id))).status, 404, url)
  })

  t.test('the prefix leads to all of them, and hooks of the application guard them', async (t) => {
    const seen: string[] = []
    const { app, call } = await admin(t, { prefix: '/bg', routes: { onRequest: async (request) => { seen.push(`${request.method} ${request.url}`) } } })
    for (const [method, url] of doors) {
      t.ok(app.hasRoute({ method, url: `/bg${url.replace('ID', ':id').replace('default', ':name')}` }), url)
    }
    await call('GET', '/bg/jobs')
    t.same(seen, ['GET /bg/jobs'])
  })

  t.test('an application with compilers of its own changes no check and no answer', async (t) => {
    const odd = (): never => { throw new Error('asked for a schema that is not its own') }
    const { app } = await setup(t, { routes: { admin: true }, authorize: () => true, before: (app) => { app.setValidatorCompiler(odd).setSerializerCompiler(odd) } })
    t.same((await app.inject('/jobs?limit=1')).json(), { jobs: [], next: null })
    t.equal((await app.inject('/jobs?limit=0')).statusCode, 400)
    t.equal((await app.inject(`/jobs/${unknownId}/status`)).statusCode, 404)
    t.equal((await app.inject('/health/jobs')).statusCode, 200)
  })
})

t.test('GET /jobs', async (t) => {
  const ids = async (admin: Admin, query = ''): Promise<string[]> => (await admin.call('GET', `/jobs${query}`)).body.jobs.map((job: { jobId: string }) => job.jobId)

  t.test('shows jobs of all states in the order of making, without payloads', async (t) => {
    const made = await admin(t)
    const dead = await made.die({ password: 'hunter2' })
    const { id: done } = await made.background.add('task', 'hunter2')
    await made.clock.settle()
    const { id: later } = await made.background.add('task', { password: 'hunter2' }, { delay: 1_000, priority: 7 })
    const { status, body, headers } = await made.call('GET', '/jobs')
    t.equal(status, 200)
    t.equal(headers['cache-control'], 'no-store')
    t.same(body.jobs.map((job: { jobId: string }) => job.jobId), [dead, done, later])
    t.equal(body.next, null)
    t.match(body.jobs, [
      { name: 'bad', state: 'failed', failure: 'exhausted', error: { name: 'TypeError', code: 'E_ORDER', message: /no order/ }, history: [{ attempt: 1, error: { stack: /TypeError/ } }] },
      { name: 'task', state: 'completed', history: [] },
      { name: 'task', state: 'delayed', delayReason: 'delay', priority: 7, requestId: null }
    ])
    for (const job of body.jobs) t.notOk('payload' in job)
  })

  t.test('by state, task and queue', async (t) => {
    const made = await admin(t, { queues: { mail: {} } })
    const dead = await made.die()
    const { id: later } = await made.background.add('task', null, { delay: 1_000 })
    const { id: mail } = await made.background.add('task', null, { delay: 1_000, queue: 'mail' })
    t.same(await ids(made, '?state=failed'), [dead])
    t.same(await ids(made, '?state=failed&state=delayed'), [dead, later, mail])
    t.same(await ids(made, '?task=bad'), [dead])
    t.same(await ids(made, '?queue=mail'), [mail])
    t.same(await ids(made, '?queue=default&state=delayed'), [later])
    t.same(await ids(made, '?task=nobody'), [])
  })

  t.test('page by page, in both orders', async (t) => {
    const made = await admin(t)
    const all: string[] = []
    for (let n = 0; n < 5; n++) all.push((await made.background.add('task', n, { delay: 1_000 })).id)
    for (const order of ['oldest', 'newest']) {
      const seen: string[] = []
      for (let after = ''; ;) {
        const { body } = await made.call('GET', `/jobs?limit=2&order=${order}${after}`)
        t.ok(body.jobs.length <= 2)
        seen.push(...body.jobs.map((job: { jobId: string }) => job.jobId))
        if (body.next === null) break
        after = `&after=${body.next as string}`
      }
      t.same(seen, order === 'oldest' ? all : [...all].reverse())
    }
  })

  t.test('leaves out what the reader may not read, and goes on after it', async (t) => {
    const made = await admin(t)
    const { background, call } = made
    for (const tenant of ['a', 'b', 'a']) await background.add('task', { tenant }, { delay: 1_000 })
    const { body } = await call('GET', '/jobs?limit=2', undefined, { 'x-tenant': 'a' })
    t.equal(body.jobs.length, 1)
    t.equal((await call('GET', `/jobs?limit=2&after=${body.next as string}`, undefined, { 'x-tenant': 'a' })).body.jobs.length, 1)
    t.match(made.asked, [{ action: 'list' }, { action: 'read' }, { action: 'read' }, { action: 'list' }, { action: 'read' }])
  })

  t.test('every wish has bounds', async (t) => {
    const { call } = await admin(t)
    for (const query of ['limit=0', 'limit=1001', 'limit=-1', 'limit=1.5', 'limit=x', 'limit=1e99', 'state=gone', 'state=', 'after=x', 'order=up', 'task=', `task=${'x'.repeat(129)}`, 'foo=1', '__proto__=1', 'limit=1&limit=2', `state=${'failed&state='.repeat(9)}failed`]) {
      t.equal((await call('GET', `/jobs?${query}`)).status, 400, query.slice(0, 30))
    }
  })

  t.test('payloads are shown where redact says what to hide, and that is hidden', async (t) => {
    const { call, background, clock } = await admin(t, { redact: ['payload.password', 'payload.cards[*].number', 'result.password', '*.token', 'payload["a b"].c'] })
    const payload = { password: 'hunter2', cards: [{ number: 4, type: 'x' }, { number: 5 }], token: 'hunter2', kept: { token: 'deeper' }, 'a b': { c: 'hunter2' } }
    const { id } = await background.add('task', payload)
    await clock.settle()
    const [job] = (await call('GET', '/jobs')).body.jobs
    const hidden = '[REDACTED]'
    t.same(job.payload, { password: hidden, cards: [{ number: hidden, type: 'x' }, { number: hidden }], token: hidden, kept: { token: 'deeper' }, 'a b': { c: hidden } })
    t.match(job.result, { password: hidden, token: hidden, cards: [{ number: 4 }, { number: 5 }] })
    t.same((await background.get(id))?.payload, payload, 'what is kept is whole')
  })

  t.test('redact: [] shows all', async (t) => {
    const { call, background } = await admin(t, { redact: [] })
    await background.add('task', { password: 'hunter2' })
    t.same((await call('GET', '/jobs')).body.jobs[0].payload, { password: 'hunter2' })
  })

  t.test('a path of redact that could never match is refused at boot', async (t) => {
    for (const path of ['password', '', '.payload', 'payload.', 'payload..a', 'payload[', 'payload[a]', 'name', 5, 'payload a']) {
      await t.rejects(async () => { await Fastify().register(backgroundTasks, { redact: [path] as string[] }) }, { code: 'FST_BG_BAD_OPTION' }, String(path))
    }
  })
})

t.test('DELETE /jobs/:id', async (t) => {
  t.test('cancels a job that waits: 200', async (t) => {
    const { call, background } = await admin(t)
    const { id } = await background.add('task', null, { delay: 1_000 })
    t.match(await call('DELETE', `/jobs/${id}`), { status: 200, body: { jobId: id, state: 'cancelled' } })
    t.match(await background.get(id), { state: 'cancelled', reason: 'user' })
  })

  t.test('asks one that runs to stop: 202', async (t) => {
    const { call, background, clock } = await admin(t)
    const { id } = await background.add(({ signal }) => new Promise((_resolve, reject) => { signal.addEventListener('abort', () => { reject(signal.reason as Error) }) }))
    await clock.settle()
    t.match(await call('DELETE', `/jobs/${id}`), { status: 202, body: { jobId: id, state: 'active' } })
    await clock.settle()
    t.match(await background.get(id), { state: 'cancelled', reason: 'user' })
  })

  t.test('is too late for one that has ended: 409', async (t) => {
    const { call, die } = await admin(t)
    t.match(await call('DELETE', `/jobs/${await die()}`), { status: 409, body: { code: 'FST_BG_NOT_CANCELLABLE' } })
  })

  t.test('of what nobody knows: 404', async (t) => {
    const { call } = await admin(t)
    for (const id of [unknownId, 'x', '__proto__', '%00']) t.match(await call('DELETE', `/jobs/${id}`), { status: 404, body: { code: 'FST_BG_JOB_NOT_FOUND' } })
  })
})

t.test('POST /jobs/:id/retry', async (t) => {
  t.test('starts a dead letter again, with and without a body', async (t) => {
    for (const body of [{}, undefined]) {
      const { call, die, world, background, clock } = await admin(t)
      const id = await die()
      world.broken = false
      t.match(await call('POST', `/jobs/${id}/retry`, body), { status: 200, body: { matched: 1, done: 1 } })
      await clock.settle()
      t.equal((await background.get(id))?.state, 'completed')
    }
  })

  t.test('of a job that is no dead letter, or whose function is gone: 409', async (t) => {
    const { call, background, clock } = await admin(t)
    const { id: later } = await background.add('task', null, { delay: 1_000 })
    const { id: inline } = await background.add(() => { throw new Error('x') })
    await clock.settle()
    for (const id of [later, inline]) t.match(await call('POST', `/jobs/${id}/retry`, {}), { status: 409, body: { code: 'FST_BG_NOT_RETRYABLE' } })
  })

  t.test('with a patch that fits', async (t) => {
    const { call, die, world, background, clock } = await admin(t)
    const id = await die({ n: 1 }, 'strict')
    t.match(await call('POST', `/jobs/${id}/retry`, { patch: { n: 0 } }), { status: 400, body: { code: 'FST_BG_BAD_PAYLOAD' } })
    t.same((await background.get(id))?.payload, { n: 1 })
    world.broken = false
    t.match(await call('POST', `/jobs/${id}/retry`, { patch: { n: 2 } }), { status: 200 })
    await clock.settle()
    t.match(await background.get(id), { state: 'completed', payload: { n: 2 }, result: { n: 2 } })
  })
})

t.test('dead letters over HTTP', async (t) => {
  t.test('are listed with fingerprint and history, by task, fingerprint and time', async (t) => {
    const { call, die, clock } = await admin(t)
    const one = await die({ n: 1 })
    await clock.advance(60_000)
    const two = await die({ n: 22 }, 'strict')
    const list = async (query = ''): Promise<string[]> => (await call('GET', `/jobs/dead${query}`)).body.jobs.map((job: { jobId: string }) => job.jobId)
    const { body } = await call('GET', '/jobs/dead')
    t.match(body, { jobs: [{ jobId: one, fingerprint: /^[0-9a-f]{16}$/, history: [{ attempt: 1 }] }, { jobId: two }], next: null })
    t.equal(body.jobs[0].fingerprint, body.jobs[1].fingerprint)
    t.same(await list('?task=strict'), [two])
    t.same(await list(`?fingerprint=${body.jobs[0].fingerprint as string}`), [one, two])
    t.same(await list('?fingerprint=0000000000000000'), [])
    t.same(await list('?since=2026-01-01T00:01:00Z'), [two])
    t.same(await list('?until=2026-01-01T00:01:00Z'), [one])
    for (const query of ['limit=0', 'limit=1001', 'fingerprint=x', 'since=yesterday', 'since=2026-01-01T23:59:60Z', 'until=1', 'foo=1']) t.equal((await call('GET', `/jobs/dead?${query}`)).status, 400, query)
  })

  t.test('come in groups', async (t) => {
    const { call, die } = await admin(t)
    for (const n of [1, 2, 3]) await die({ n })
    const latest = await die({ n: 4 }, 'strict')
    const { status, body } = await call('GET', '/jobs/dead/groups')
    t.equal(status, 200)
    t.match(body, { matched: 4, groups: [{ count: 4, tasks: ['bad', 'strict'], latest, error: { name: 'TypeError', code: 'E_ORDER', message: /no order/ } }] })
    t.match((await call('GET', '/jobs/dead/groups?task=strict')).body, { matched: 1 })
    t.match((await call('GET', '/jobs/dead/groups', undefined, { 'x-tenant': 'a' })).body, { matched: 0, groups: [] })
  })

  t.test('are retried: counted first, by what they have in common, at a rate', async (t) => {
    const { call, die, world, background, clock } = await admin(t)
    const all = [await die({ n: 1 }), await die({ n: 2 }), await die({ n: 3 })]
    const other = await die({ n: 1 }, 'strict')
    world.broken = false
    t.match(await call('POST', '/jobs/dead/retry', { task: 'bad', dryRun: true }), { status: 200, body: { matched: 3, done: 0 } })
    t.match(await call('POST', '/jobs/dead/retry', { task: 'bad', ratePerSecond: 1 }), { status: 200, body: { matched: 3, done: 3 } })
    const states = async (): Promise<unknown[]> => Promise.all(all.map(async (id) => (await background.get(id))?.state))
    await clock.settle()
    t.same(await states(), ['completed', 'delayed', 'delayed'])
    await clock.advance(1_000)
    t.same(await states(), ['completed', 'completed', 'delayed'])
    t.equal((await background.get(other))?.state, 'failed')
  })

  t.test('of foreign tenants are not matched', async (t) => {
    const { call, die, background } = await admin(t)
    const [mine, foreign] = [await die({ tenant: 'a' }), await die({ tenant: 'b' })]
    t.match(await call('POST', '/jobs/dead/retry', {}, { 'x-tenant': 'a' }), { body: { matched: 1, done: 1 } })
    t.not((await background.get(mine))?.startedAt, (await background.get(foreign))?.startedAt)
    t.equal((await background.get(foreign))?.state, 'failed')
  })

  t.test('follow a canary that comes through, and not one that dies', async (t) => {
    const { call, die, world, background, clock } = await admin(t)
    const all = [await die(), await die(), await die()]
    t.match(await call('POST', '/jobs/dead/retry', { canary: true }), { status: 200, body: { matched: 3, done: 1, canary: { jobId: all[0], state: 'failed' } } })
    world.broken = false
    t.match(await call('POST', '/jobs/dead/retry', { canary: true }), { body: { matched: 3, done: 3, canary: { jobId: all[0], state: 'completed' } } })
    await clock.settle()
    for (const id of all) t.equal((await background.get(id))?.state, 'completed')
  })

  t.test('numbers have bounds', async (t) => {
    const { call, die, background } = await admin(t)
    const id = await die()
    for (const body of [{ ratePerSecond: 0 }, { ratePerSecond: -1 }, { ratePerSecond: 1e7 }, { ratePerSecond: '5' }, { canaryTimeout: 0 }, { canaryTimeout: 1e9 }, { dryRun: 'yes' }, { patch: [] }, { patch: 5 }, { task: '' }]) {
      t.equal((await call('POST', '/jobs/dead/retry', body)).status, 400, JSON.stringify(body))
    }
    t.equal((await background.get(id))?.state, 'failed')
  })

  t.test('with a patch for a task that is not defined any more: 409', async (t) => {
    const clock = new TestClock()
    const backend = memory({ clock })
    const { call, background } = await admin(t, { backend })
    await background.add(() => { throw new Error('x') }, {})
    await clock.settle()
    t.match(await call('POST', '/jobs/dead/retry', { patch: {} }), { status: 409, body: { code: 'FST_BG_UNKNOWN_TASK' } })
  })
})

t.test('GET /jobs/schedules lists them with their next times, without payloads', async (t) => {
  const { call, background } = await admin(t)
  await background.schedule('often', { every: 60_000, limit: 9 }, 'task', { card: '4111' })
  const { status, body, headers } = await call('GET', '/jobs/schedules')
  t.equal(status, 200)
  t.equal(headers['cache-control'], 'no-store')
  t.strictSame(body, { schedules: [{
    id: 'often', name: 'task', queue: 'default', every: 60_000, overlap: 'skip', missed: 'skip', limit: 9, next: '2026-01-01T00:01:00.000Z', count: 0, lastJobId: null, lastAt: null
  }] })
})

t.test('POST /jobs/tasks/:name', async (t) => {
  t.test('adds a job of the task, whose payload is the body', async (t) => {
    const { call, background, clock } = await admin(t)
    const { status, body, headers } = await call('POST', '/jobs/tasks/task', { month: '2026-01' })
    t.equal(status, 202)
    t.equal(headers['location'], `/jobs/${body.jobId}/status`)
    await clock.settle()
    t.match(await background.get(body.jobId), { name: 'task', state: 'completed', payload: { month: '2026-01' } })
    const empty = await call('POST', '/jobs/tasks/task')
    t.match(await background.get(empty.body.jobId), { payload: null })
  })

  t.test('twice with one Idempotency-Key, it is one job', async (t) => {
    const { call } = await admin(t)
    const key = { 'idempotency-key': 'report-2026-01' }
    const first = await call('POST', '/jobs/tasks/task', 1, key)
    const second = await call('POST', '/jobs/tasks/task', 1, key)
    t.strictSame([first.status, second.body.jobId], [202, first.body.jobId])
  })

  t.test('is for those alone whom authorize lets trigger, and not for pages of other sites', async (t) => {
    const { call, asked, background } = await admin(t)
    t.match(await call('POST', '/jobs/tasks/task', 1, { 'x-key': '' }), { status: 403, body: { code: 'FST_BG_FORBIDDEN' } })
    t.strictSame(asked.map(({ action }) => action), ['trigger'])
    t.match(await call('POST', '/jobs/tasks/task', 1, { 'sec-fetch-site': 'cross-site' }), { status: 403, body: { code: 'FST_BG_CROSS_SITE' } })
    t.match(await call('POST', '/jobs/tasks/task', '1', { 'content-type': 'text/plain' }), { status: 415, body: { code: 'FST_BG_NOT_JSON' } })
    t.match(await background.counts(), { default: { pending: 0, waiting: 0, completed: 0 } })
  })

  t.test('an unknown task is a 404, a payload that does not fit a 400', async (t) => {
    const { call } = await admin(t)
    t.match(await call('POST', '/jobs/tasks/nobody', 1), { status: 404, body: { code: 'FST_BG_UNKNOWN_TASK' } })
    t.match(await call('POST', '/jobs/tasks/strict', { n: 0 }), { status: 400, body: { code: 'FST_BG_BAD_PAYLOAD' } })
  })
})

t.test('POST /queues/:name/pause and /resume', async (t) => {
  t.test('stop a queue and let it go on', async (t) => {
    const { call, background, clock } = await admin(t)
    t.match(await call('POST', '/queues/default/pause'), { status: 200, body: { queue: 'default', paused: true } })
    const { id } = await background.add('task')
    await clock.settle()
    t.equal((await background.get(id))?.state, 'waiting')
    t.match(await call('POST', '/queues/default/resume', {}), { status: 200, body: { queue: 'default', paused: false } })
    await clock.settle()
    t.equal((await background.get(id))?.state, 'completed')
  })

  t.test('of a queue that is not there: 404', async (t) => {
    const { call } = await admin(t)
    for (const name of ['mail', '__proto__', 'x'.repeat(100)]) t.match(await call('POST', `/queues/${name}/pause`, {}), { status: 404, body: { code: 'FST_BG_UNKNOWN_QUEUE' } }, name)
  })
})

t.test('a body over HTTP/2 that does not say its length is read all the same', async (t) => {
  const made = await site(t, async ({ app }) => {
    app.background.define('bad', { attempts: 1 }, () => { throw new Error('x') })
    app.background.define('worse', { attempts: 1 }, () => { throw new Error('x') })
  }, { protocol: 'HTTP/2', plugin: { routes: { admin: true }, authorize: () => true } })
  const [bad, worse] = [await made.app.background.add('bad'), await made.app.background.add('worse')]
  for (const job of [bad, worse]) await t.rejects(job.finished())
  const exchange = await open(made, '/jobs/dead/retry', { method: 'POST', headers: json, body: '{"task":"bad","dryRun":true}' })
  t.match(await exchange.answer(), { status: 200, body: '{"matched":1,"done":0}' })
  t.match(await (await open(made, '/queues/default/pause', { method: 'POST', headers: json })).answer(), { status: 200 })
})
