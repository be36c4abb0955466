/**
 * Whatever a client sends: no 500, no crash, nobody else's data, no line in the log that is not one line. What a
 * server's own code passes is in options.ts.
 */
import { once } from 'node:events'
import { connect, type AddressInfo } from 'node:net'
import fc from 'fast-check'
import t, { test, type Test } from 'tap'
import type { FastifyReply } from 'fastify'
import type { BackgroundTasksOptions } from '../../lib/index.ts'
import { closeInTime, setup, type Harness } from '../support/harness.ts'
import { anyText, nastyTexts, revoked, runs, traps, watchPrototypes, wellFormed } from '../support/hostile.ts'
import { seed } from '../support/seed.ts'

fc.configureGlobal({ seed })

const prototypes = watchPrototypes()
t.afterEach(() => {
  if (prototypes().length > 0) throw new Error(`prototypes were changed: ${prototypes().join(', ')}`)
})

/** In payloads, in texts of errors, in stacks: never in a body. */
const SECRET = 'hunter2'

interface Site extends Harness {
  /** Raw, as written. */
  raw: string[]
  /** Ids of a job of each kind. */
  ids: string[]
}

/** Jobs in several states with secrets in them, and a route for each way of adding. */
async function site (t: Test, options: BackgroundTasksOptions = {}): Promise<Site> {
  const raw: string[] = []
  const logger = { level: 'trace', stream: { write (line: string) { raw.push(line) } } }
  const harness = await setup(t, { maxWait: 50, ...options, server: { logger, requestIdHeader: 'x-request-id' } })
  const { app, clock } = harness
  const { background } = app
  background.define('ok', { attempts: 1 }, (_payload: unknown) => 'done')
  background.define('bad', { attempts: 1 }, (payload: unknown) => { throw Object.assign(new Error(`${SECRET} ${JSON.stringify(payload)}`), { stack: `Error: ${SECRET}\n at ${SECRET}.js`, cause: new Error(SECRET) }) })
  background.define('strict', { attempts: 1, schema: { type: 'object', required: ['to'], additionalProperties: false, properties: { to: { type: 'string', maxLength: 5 } } } }, () => {})
  const add = (name: string, payload: unknown, reply: FastifyReply): FastifyReply => { reply.background(name, payload); return reply.code(202).send({ ok: true }) }
  for (const name of ['ok', 'bad', 'strict']) {
    app.post(`/background/${name}`, async (request, reply) => add(name, request.body, reply))
    app.post(`/accepted/${name}`, async (request, reply) => reply.accepted(name, request.body))
  }
  await app.ready()
  const jobs = [await background.add('ok', SECRET), await background.add('bad', { password: SECRET }), await background.add(function inline () { return 1 })]
  await clock.settle()
  jobs.push(await background.add('ok', SECRET, { delay: 1e9 }))
  return { ...harness, background, raw, ids: jobs.map(({ id }) => id) }
}

/** Each line of ours is one line for everybody, and is JSON. */
function checkLog (t: Test, raw: string[]): void {
  const broken = raw.filter((line) => !line.endsWith('\n') || line.indexOf('\n') !== line.length - 1 || /[^\P{Cc}\n\u007f-\u009f]/u.test(line))
  t.strictSame(broken, [], 'one line each')
  for (const line of raw) JSON.parse(line)
}

const pathPart = fc.oneof(anyText.map((text) => encodeURIComponent(wellFormed(text))), fc.string({ unit: 'binary', maxLength: 40 }).map((text) => encodeURI(wellFormed(text))),
  fc.constantFrom('%', '%zz', '%00', '%0a%0d', '..', '%2e%2e%2f', '%e2%80%a8', 'x'.repeat(2_000), '01890000-0000-7000-8000-000000000000', '%c0%80', '%ff'))
const headerValue = fc.oneof(fc.string({ maxLength: 60 }), fc.constantFrom(
  '', 'wait', 'wait=', 'wait=-1', 'wait=1e9', 'wait=999999999', 'wait=99999999999999999999', 'wait=0x10', 'wait="1"', 'wait=1;x=2, wait=9', 'respond-async, wait=1, return=minimal',
  'WAIT=1', ',,,,', ';;;', '='.repeat(5_000), 'wait=1,'.repeat(2_000), '"', '\\"', '__proto__=1', 'constructor=1, wait=1', '*/*', 'text/html;q=0', 'gzip;q=Infinity', 'x'.repeat(8_000), '\u00ff\u0085'
))
const headers = fc.record({ prefer: headerValue, accept: headerValue, vary: headerValue, 'x-request-id': headerValue, 'accept-encoding': headerValue, 'if-none-match': headerValue }, { requiredKeys: [] })
const query = fc.oneof(fc.constant(''), fc.webQueryParameters(), fc.constantFrom('strict=1', 'strict=1&strict=2', 'strict[]=1', 'strict=', '__proto__[x]=1', 'constructor.prototype.x=1', 'strict=%', '&&&', 'strict=1%00'))
const method = fc.constantFrom('GET', 'HEAD', 'OPTIONS', 'POST', 'PUT', 'DELETE', 'PATCH', 'TRACE')

test('the routes for status and health, whatever they are asked', async (t) => {
  const { app, raw, ids } = await site(t)
  const id = fc.oneof(fc.constantFrom(...ids), pathPart)
  const path = fc.oneof(id.map((part) => `/jobs/${part}/status`), fc.constant('/health/jobs'), pathPart.map((part) => `/jobs/${part}`), pathPart.map((part) => `/health/jobs/${part}`))
  await fc.assert(fc.asyncProperty(method, path, query, headers, async (method, path, query, headers) => {
    const response = await app.inject({ method: method as 'GET', url: `${path}${query === '' ? '' : `?${query}`}`, headers })
    const known = ids.find((id) => path === `/jobs/${id}/status`)
    if (response.statusCode >= 500) throw new Error(`${response.statusCode} ${response.body}`)
    if (response.body.includes(SECRET) || response.body.includes('.js')) throw new Error(`a secret is out: ${response.body}`)
    for (const other of ids) if (other !== known && response.body.includes(other)) throw new Error(`another job is out: ${response.body}`)
    if (known !== undefined && ['GET', 'HEAD'].includes(method) && response.statusCode !== 200) throw new Error(`a known job is not found: ${response.statusCode}`)
  }), runs(600))
  checkLog(t, raw)
})

test('malformed and unknown ids look alike', async (t) => {
  const { app } = await site(t)
  const answers = new Set<string>()
  for (const part of [...nastyTexts.filter((text) => text.length > 0 && text.length < 100).map((text) => encodeURIComponent(wellFormed(text))), '01890000-0000-7000-8000-000000000000', '0', '-1', 'null']) {
    const response = await app.inject(`/jobs/${part}/status`)
    answers.add(`${response.statusCode} ${response.body}`)
  }
  t.strictSame([...answers], ['404 {"statusCode":404,"code":"FST_BG_JOB_NOT_FOUND","error":"Not Found","message":"no such job: it is unknown or no longer kept"}'])
})

test('routes that add jobs, whatever is in the body and the headers', async (t) => {
  const { app, clock, raw, background, ids } = await site(t)
  const url = fc.constantFrom(...['background', 'accepted'].flatMap((how) => ['ok', 'bad', 'strict'].map((name) => `/${how}/${name}`)))
  const body = fc.oneof(
    fc.json({ maxDepth: 4 }), fc.string(), fc.constantFrom('', 'null', '{"to":"a"}', '{"to":1}', '{"to":"abcdef"}', '{"a":{"__proto__":{"x":1}}}', '{"constructor":{"prototype":{"x":1}}}',
      '['.repeat(200) + ']'.repeat(200), `{"to":"${'x'.repeat(300_000)}"}`, '"\\u2028"', '{"to":"\\u0000"}', '1e999', '{"toJSON":1,"then":2}')
  ).map((text) => ({ payload: text, type: 'application/json' }))
  await fc.assert(fc.asyncProperty(url, body, headers, async (url, { payload, type }, headers) => {
    const waiting = app.inject({ method: 'POST', url, payload, headers: { ...headers, 'content-type': type } })
    await clock.advance(100) // the most that `Prefer: wait` is given here
    const response = await waiting
    // A payload that a task refuses is the server's own error, by contract: it should have checked its body.
    const code = response.statusCode === 500 ? response.json<{ code: string }>().code : ''
    if (response.statusCode >= 500 && !/^FST_BG_(BAD_PAYLOAD|PAYLOAD_TOO_LARGE)$/.test(code)) throw new Error(`${response.statusCode} ${response.body}`)
    if (response.body.includes(SECRET) || /\.js\b|node:/.test(response.body)) throw new Error(`a secret is out: ${response.body}`)
    for (const other of ids) if (response.body.includes(other)) throw new Error(`another job is out: ${response.body}`)
    if (/[^\t\x20-\x7e\x80-\xff]/.test(JSON.stringify(response.headers))) throw new Error('a broken header')
    if (code === 'FST_BG_BAD_PAYLOAD' && payload.length > 40 && response.body.includes(payload.slice(10, 30))) throw new Error(`a payload is out: ${response.body}`)
  }), runs(400))
  checkLog(t, raw)
  await background.onIdle()
  t.match((await app.inject('/health/jobs')).json(), { queues: { default: { pending: 0, waiting: 0, active: 0 } } })
})

test('an own key __proto__ in a payload stays data', async (t) => {
  const { app, background, clock } = await setup(t, { server: { onProtoPoisoning: 'ignore', onConstructorPoisoning: 'ignore' } })
  let seen: unknown
  background.define('look', (payload: Record<string, unknown>, { progress }) => { seen = payload; progress(payload); return payload })
  app.post('/', async (request, reply) => reply.accepted('look', request.body))
  const payload = '{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}},"a":[{"__proto__":{"polluted":true}}]}'
  const response = await app.inject({ method: 'POST', url: '/', payload, headers: { 'content-type': 'application/json' } })
  await clock.settle()
  t.equal(JSON.stringify(seen), payload)
  t.equal((seen as Record<string, unknown>)['polluted'], undefined)
  const status = (await app.inject(response.json<{ statusUrl: string }>().statusUrl)).body
  t.ok(status.includes(`"result":${payload}`) && status.includes(`"progress":${payload}`), status)
  t.equal(({} as Record<string, unknown>)['polluted'], undefined)
})

test('an authorize that throws anything is a plain error of that request alone', async (t) => {
  const thrown: unknown[] = [undefined, null, 0, 'text', Symbol('s'), revoked(), new Proxy({}, traps), Object.freeze(new Error(SECRET)), { statusCode: 'x' }, Object.assign(new Error('no'), { statusCode: 401 })]
  let next: unknown
  const { app, ids, raw } = await site(t, { authorize: () => { throw next } })
  for (const value of thrown) {
    next = value
    const response = await app.inject(`/jobs/${ids[1]}/status`)
    t.ok([401, 404, 500].includes(response.statusCode), String(response.statusCode))
    t.notMatch(response.body, /"jobId"|password/)
    t.equal((await app.inject('/health/jobs')).statusCode, 200)
  }
  checkLog(t, raw)
})

test('no line of the log can be broken by a name, a reason, an id or a text of an error', async (t) => {
  const { app, background, clock, raw } = await site(t)
  const before = raw.length
  for (const text of nastyTexts) {
    const work = Object.defineProperty(() => { throw Object.assign(new Error(text), { name: text, code: text, stack: text, cause: new Error(text) }) }, 'name', { value: text })
    await background.add(work)
    const job = await background.add(() => {}, { delay: 1_000 })
    await background.cancel(job.id, text).catch(() => {})
    await app.inject({ method: 'POST', url: '/background/bad', payload: JSON.stringify(text), headers: { 'content-type': 'application/json', 'x-request-id': text.slice(0, 8_000) } })
    await clock.advance(1_000) // what repeats within a second is one line
  }
  const ours = raw.slice(before).filter((line) => !/"msg":"(incoming request|request completed)"/.test(line))
  t.ok(ours.length >= nastyTexts.length * 3 - 15)
  checkLog(t, ours)
  for (const line of ours) {
    t.ok(line.length < 60_000, `${line.length} characters`)
    const { task, detail, jobId, queue, err } = JSON.parse(line) as Record<string, unknown>
    for (const part of [task, detail, jobId, queue]) t.notMatch(String(part), /[\p{Cc}\p{Zl}\p{Zp}]/u)
    t.notMatch(JSON.stringify(err ?? ''), /[\u2028\u2029]/)
  }
})

test('bytes that are no HTTP leave the server and its jobs alone', async (t) => {
  const { app, clock, background } = await site(t)
  await app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = app.server.address() as AddressInfo
  const rough = [
    '\r\n\r\n', '\u0000\u0001\u0002', 'GET / HTTP/9.9\r\n\r\n', 'GET /jobs/\u2028/status HTTP/1.1\r\nhost: x\r\n\r\n', 'GET /jobs/a b/status HTTP/1.1\r\nhost: x\r\n\r\n',
    'GET /health/jobs HTTP/1.1\r\nhost: x\r\nprefer: wait=1\r\n bad\r\n\r\n', 'POST /accepted/ok HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
    `GET /jobs/${'x'.repeat(20_000)}/status HTTP/1.1\r\nhost: x\r\n\r\n`, `GET /health/jobs HTTP/1.1\r\nhost: x\r\nprefer: ${'wait=1,'.repeat(4_000)}\r\n\r\n`,
    'POST /accepted/ok HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 3\r\nprefer: wait=1\u0000\r\n\r\n"a"'
  ]
  for (const bytes of rough) {
    const socket = connect(port, '127.0.0.1')
    let answer = ''
    socket.on('data', (chunk) => { answer += String(chunk) }).on('error', () => {})
    socket.end(bytes)
    await once(socket, 'close')
    t.notMatch(answer, /^HTTP\/1\.1 500/)
    t.notMatch(answer, SECRET)
  }
  await clock.advance(100)
  t.equal((await app.inject('/health/jobs')).statusCode, 200)
  t.equal(await (await background.add(() => 'works')).finished(), 'works')
  await closeInTime(app, clock)
})
