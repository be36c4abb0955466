/** What @fastify/swagger and @fastify/under-pressure make of our routes. */
import swagger from '@fastify/swagger'
import underPressure from '@fastify/under-pressure'
import { Validator } from '@seriousme/openapi-schema-validator'
import Fastify, { type FastifyInstance } from 'fastify'
import { test } from 'tap'
import { backgroundTasks, type BackgroundTasksOptions } from '../../lib/index.ts'

interface Operation {
  summary?: string
  tags?: string[]
  parameters?: Array<{ name: string, in: string, required?: boolean, schema: Record<string, unknown> }>
  requestBody?: { content: Record<string, { schema: Record<string, any> }> }
  responses: Record<string, { description: string, content?: Record<string, { schema: Record<string, any> }> }>
}
type Paths = Record<string, Record<string, Operation>>

const all: BackgroundTasksOptions = { routes: { admin: true, events: true }, authorize: () => true }

async function documented (openapi: string, options: BackgroundTasksOptions = all, define: (app: FastifyInstance) => void = () => {}): Promise<{ app: FastifyInstance, document: object, paths: Paths }> {
  const app = Fastify()
  await app.register(swagger, { openapi: { openapi, info: { title: 'jobs', version: '1' }, components: { securitySchemes: { key: { type: 'apiKey', name: 'x-key', in: 'header' } } } } })
  await app.register(backgroundTasks, options as never)
  define(app)
  await app.ready()
  const document = app.swagger() as unknown as { paths: Paths }
  return { app, document, paths: document.paths }
}

/** What the answer of a status route says of `result`. */
function resultIn (operation: Operation | undefined): unknown {
  const properties = operation?.responses['200']?.content?.['application/json']?.schema['properties'] as Record<string, unknown> | undefined
  return properties?.['result']
}

/** Path, method, status codes. */
const expected: Record<string, string[]> = {
  'get /jobs/{id}/status': ['200', '400', '404'],
  'get /health/jobs': ['200', '400', '503'],
  'get /jobs/{id}/events': ['200', '204', '400', '404', '429', '503'],
  'get /jobs': ['200', '400', '403'],
  'get /jobs/dead': ['200', '400', '403'],
  'get /jobs/dead/groups': ['200', '400', '403'],
  'get /jobs/schedules': ['200', '403'],
  'post /jobs/tasks/{name}': ['200', '202', '400', '403', '404', '413', '415', '503'],
  'post /jobs/dead/retry': ['200', '400', '403', '409', '415'],
  'post /jobs/{id}/retry': ['200', '400', '403', '404', '409', '415'],
  'delete /jobs/{id}': ['200', '202', '400', '403', '404', '409'],
  'post /queues/{name}/pause': ['200', '400', '403', '404', '415'],
  'post /queues/{name}/resume': ['200', '400', '403', '404', '415']
}

for (const version of ['3.0.3', '3.1.0']) {
  test(`all routes make a valid OpenAPI ${version} document: summary, tags, parameters, a schema for each status`, async (t) => {
    const { app, document, paths } = await documented(version)
    t.teardown(() => app.close())
    const verdict = await new Validator().validate(structuredClone(document) as Record<string, unknown>)
    t.same(verdict.errors ?? [], [])
    t.ok(verdict.valid)
    const found = Object.entries(paths).flatMap(([path, operations]) => Object.entries(operations).map(([method, operation]) => [`${method} ${path}`, operation] as const))
      .filter(([name]) => !name.startsWith('head '))
    t.same(found.map(([name]) => name).sort(), Object.keys(expected).sort())
    for (const [name, { summary = '', tags, parameters = [], requestBody, responses }] of found) {
      t.ok(summary.length > 10, `${name}: ${summary}`)
      t.same(tags, ['background jobs'], name)
      t.same(Object.keys(responses), expected[name], name)
      for (const [status, { content }] of Object.entries(responses)) {
        const [schema] = Object.values(content ?? {}).map((each) => each.schema)
        t.ok(status === '204' || (schema?.['type'] !== undefined), `${name} ${status}`)
      }
      t.same([...name.matchAll(/\{(\w+)\}/g)].map(([, parameter]) => parameter), parameters.filter((each) => each.in === 'path').map((each) => each.name))
      for (const { name: parameter, schema } of parameters) t.ok(schema['type'] !== undefined, `${name} ${parameter}`)
      t.equal(requestBody !== undefined, name.startsWith('post'), name)
    }
  })
}

test('every number that comes in has a minimum and a maximum', async (t) => {
  const { app, paths } = await documented('3.0.3')
  t.teardown(() => app.close())
  let numbers = 0
  const look = (schema: unknown, where: string): void => {
    if (typeof schema !== 'object' || schema === null) return
    const { type, minimum, maximum } = schema as { type?: string, minimum?: number, maximum?: number }
    if (type === 'integer' || type === 'number') {
      numbers++
      t.ok(Number.isFinite(minimum) && Number.isFinite(maximum), where)
    }
    for (const [key, inner] of Object.entries(schema)) look(inner, `${where}.${key}`)
  }
  for (const [path, operations] of Object.entries(paths)) {
    for (const [method, { parameters, requestBody }] of Object.entries(operations)) look({ parameters, requestBody }, `${method} ${path}`)
  }
  t.ok(numbers >= 5, `${numbers} numbers`)
})

test('a task that says what it returns is described in the status; the words of the application win', async (t) => {
  const resultSchema = { type: 'object', required: ['bytes'], properties: { bytes: { type: 'integer' } } }
  const { app, document, paths } = await documented('3.0.3', { routes: { schema: { tags: ['internal'], security: [{ key: [] }] } } }, ({ background }) => {
    background.define('resize', { resultSchema }, () => ({ bytes: 1, extra: 'kept' }))
    background.define('plain', () => 'text')
  })
  t.teardown(() => app.close())
  t.ok((await new Validator().validate(structuredClone(document) as Record<string, unknown>)).valid)
  const status = paths['/jobs/{id}/status']?.['get']
  t.same(status?.tags, ['internal'])
  t.match(status, { security: [{ key: [] }] })
  t.same(resultIn(status), { anyOf: [{ title: 'of resize', ...resultSchema }, { title: 'of other tasks' }] })
  for (const [task, value] of [['resize', { bytes: 1, extra: 'kept' }], ['plain', 'text']] as const) {
    const job = await app.background.add(task)
    await job.finished()
    t.same((await app.inject(job.statusUrl as string)).json().result, value, 'the answer is as it was returned')
  }
})

test('without such a task a result may be anything, and one application does not tell another', async (t) => {
  const { app, paths } = await documented('3.0.3')
  t.teardown(() => app.close())
  t.same(resultIn(paths['/jobs/{id}/status']?.['get']), {})
})

test('resultSchema is a JSON schema', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(backgroundTasks)
  for (const resultSchema of [5, 'x', null, [], { safeParse () {} }]) {
    t.throws(() => { app.background.define('task', { resultSchema } as never, () => {}) }, { code: 'FST_BG_BAD_OPTION', message: /resultSchema: expected a JSON schema/ })
  }
})

test('under pressure the routes can stay open: health tells, and jobs go on', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  let sick = true
  await app.register(underPressure, { healthCheck: async () => !sick, healthCheckInterval: 600_000, exposeStatusRoute: '/live' })
  await app.register(backgroundTasks, { routes: { config: { pressureHandler: () => {} } } } as never)
  app.get('/', async () => 'ok')
  await app.ready()
  t.equal((await app.inject('/')).statusCode, 503, 'requests are refused')
  t.match((await app.inject('/health/jobs?strict=1')).json(), { status: 'ok' })
  const job = await app.background.add(() => 'done')
  t.equal(await job.finished(), 'done')
  t.match((await app.inject(job.statusUrl as string)).json(), { state: 'completed' })
  sick = false
})

test('a full queue, dead letters and old jobs leave the answer of a liveness probe as it is', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(underPressure, { exposeStatusRoute: '/live' })
  await app.register(backgroundTasks, { maxQueueSize: 1, health: { maxAge: 0, maxDead: 0 } })
  app.background.define('bad', { attempts: 1 }, () => { throw new Error('x') })
  await app.ready()
  await (await app.background.add('bad')).finished().catch(() => {})
  await app.background.pause()
  await app.background.add('bad')
  await t.rejects(app.background.add('bad'), { code: 'FST_BG_QUEUE_FULL' })
  t.equal((await app.inject('/health/jobs?strict=1')).statusCode, 503)
  t.equal((await app.inject('/live')).statusCode, 200)
  t.equal((await app.inject('/health/jobs')).statusCode, 200)
})
