/** Compiled, never run: what the types must infer, and what they must refuse. */
import type { JsonSchemaToTsProvider } from '@fastify/type-provider-json-schema-to-ts'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { expectTypeOf } from 'expect-type'
import Fastify, { type FastifyInstance } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { Type } from 'typebox'
import { z } from 'zod'
import { backgroundTasks, type BackgroundTasksOptions, type JobContext, type JobHandle, type JobRecord, type PayloadOfTask, type ResultOfTask, type ScheduleRecord, type Task } from '../../lib/index.ts'
import { inline, manual } from '../../lib/testing/index.ts'

const app = Fastify()
await app.register(backgroundTasks, { concurrency: 5, queues: { mail: { limiter: { max: 1, duration: 1_000 } } } })
declare const madeElsewhere: BackgroundTasksOptions
await app.register(backgroundTasks, madeElsewhere)

// Without a schema: from the handler's own parameter, or by an explicit type argument.
const resize = app.background.define('resize', async (payload: { path: string, width: number }, context) => {
  expectTypeOf(context).toEqualTypeOf<JobContext>()
  expectTypeOf(context.signal).toEqualTypeOf<AbortSignal>()
  return { bytes: payload.width }
})
expectTypeOf(resize).toEqualTypeOf<Task<{ path: string, width: number }, { bytes: number }>>()
const explicit = app.background.define<{ id: number }>('explicit', async (payload) => {
  expectTypeOf(payload).toEqualTypeOf<{ id: number }>()
})
expectTypeOf<PayloadOfTask<typeof explicit>>().toEqualTypeOf<{ id: number }>()
const withOptions = app.background.define('with-options', { attempts: 5, concurrency: 2 }, async (payload: { id: string }) => payload.id)
expectTypeOf<PayloadOfTask<typeof withOptions>>().toEqualTypeOf<{ id: string }>()
expectTypeOf<ResultOfTask<typeof withOptions>>().toEqualTypeOf<string>()
const bare = app.background.define('bare', () => 1)

// TypeBox
const typebox = app.withTypeProvider<TypeBoxTypeProvider>()
const email = typebox.background.define('email', {
  schema: Type.Object({ to: Type.String(), copies: Type.Optional(Type.Integer()) }), attempts: 5
}, async (payload) => {
  expectTypeOf(payload).toEqualTypeOf<{ to: string, copies?: number }>()
  return { messageId: payload.to }
})
expectTypeOf<PayloadOfTask<typeof email>>().toEqualTypeOf<{ to: string, copies?: number }>()
expectTypeOf<ResultOfTask<typeof email>>().toEqualTypeOf<{ messageId: string }>()

// Zod
const zod = app.withTypeProvider<ZodTypeProvider>()
const invoice = zod.background.define('invoice', { schema: z.object({ total: z.number() }) }, (payload) => {
  expectTypeOf(payload).toEqualTypeOf<{ total: number }>()
  return payload.total
})
expectTypeOf<PayloadOfTask<typeof invoice>>().toEqualTypeOf<{ total: number }>()

// JSON Schema, without `as const`
const json = app.withTypeProvider<JsonSchemaToTsProvider>()
const report = json.background.define('report', {
  schema: { type: 'object', required: ['month'], properties: { month: { type: 'string' } }, additionalProperties: false }
}, (payload) => {
  expectTypeOf(payload).toEqualTypeOf<{ month: string }>()
})
expectTypeOf<PayloadOfTask<typeof report>>().toEqualTypeOf<{ month: string }>()

// In a thread: the payload from the schema or a type argument; the result is not known.
const inThread = typebox.background.define('in-thread', { schema: Type.Object({ path: Type.String() }), worker: new URL('./x.js', import.meta.url), attempts: 2 })
expectTypeOf(inThread).toEqualTypeOf<Task<{ path: string }, unknown>>()
expectTypeOf(app.background.define<{ n: number }>('typed-thread', { worker: '/x.js' })).toEqualTypeOf<Task<{ n: number }, unknown>>()
// @ts-expect-error not both
app.background.define('both', { worker: '/x.js' }, () => 1)
// @ts-expect-error one of them
app.background.define('neither', { attempts: 2 })

// A plain instance with a schema: the annotation of the handler counts, as with routes.
app.background.define('annotated', { schema: { type: 'object' } }, async (payload: { a: 1 }) => payload.a)

app.post('/', async (_request, reply) => {
  const handle = reply.background(email, { to: 'a' })
  expectTypeOf(handle).toEqualTypeOf<JobHandle<{ messageId: string }>>()
  expectTypeOf(await handle.finished()).toEqualTypeOf<{ messageId: string }>()
  // @ts-expect-error a wrong payload
  reply.background(email, { to: 1 })
  // @ts-expect-error a missing payload
  reply.background(email)
  // @ts-expect-error a misspelt option
  reply.background(email, { to: 'a' }, { atempts: 1 })
  reply.background(bare)
  reply.background(bare, null, { delay: 5 })
  const inline = reply.background(async ({ log, progress, yieldNow }) => {
    log.info('x')
    progress({ done: 1 })
    await yieldNow()
    return 5
  }, { attempts: 2, when: ({ statusCode, aborted }) => statusCode < 300 && !aborted })
  expectTypeOf(inline).toEqualTypeOf<JobHandle<number>>()
  // @ts-expect-error a wrong value
  reply.background(() => {}, { when: 'sometimes' })
  return reply.accepted(resize, { path: '/tmp/a', width: 5 })
})

expectTypeOf(await app.background.add(resize, { path: '', width: 1 })).toEqualTypeOf<JobHandle<{ bytes: number }>>()
// @ts-expect-error a wrong payload
await app.background.add(resize, { path: '' })
await app.background.add('any name while no map is declared', { any: 'payload' })
await app.background.addBulk([{ name: 'resize', payload: { path: '', width: 1 } }, { name: email, payload: { to: '' } }])

expectTypeOf(await app.background.schedule('nightly', { every: 60_000, overlap: 'queue' }, resize, { path: '', width: 1 })).toEqualTypeOf<ScheduleRecord>()
await app.background.schedule('any', { pattern: '@daily', startDate: new Date(0) }, 'any name')
// @ts-expect-error a wrong payload
await app.background.schedule('nightly', { every: 60_000 }, resize, { path: '' })
// @ts-expect-error a wrong value
await app.background.schedule('nightly', { every: 60_000, overlap: 'sometimes' }, 'any name')

app.background.addHook('onTaskDead', (job, error, failure) => {
  expectTypeOf(job.attempt).toEqualTypeOf<number>()
  expectTypeOf(error).toEqualTypeOf<unknown>()
  expectTypeOf(failure).toEqualTypeOf<'exhausted' | 'unrecoverable' | 'timeout' | 'expired' | 'stalled'>()
})
// @ts-expect-error an unknown hook
app.background.addHook('onTaskFinish', () => {})

// In a child plugin the provider is named again, as for routes.
export async function child (instance: FastifyInstance): Promise<void> {
  instance.withTypeProvider<TypeBoxTypeProvider>().background.define('child', { schema: Type.Object({ n: Type.Number() }) }, (payload) => {
    expectTypeOf(payload.n).toEqualTypeOf<number>()
  })
}

// The controls of tests know the payloads of tasks.
const jobs = manual({ now: '2026-01-01' })
expectTypeOf(await jobs.run(resize, { path: '', width: 1 })).toEqualTypeOf<JobRecord>()
// @ts-expect-error a wrong payload
await jobs.run(resize, { path: '' })
// @ts-expect-error a wrong payload
await jobs.checkIdempotent(resize, { path: '' }, { methods: {}, effects: () => [], reset () {} })
await jobs.run('any name', { any: 'payload' })
expectTypeOf(await inline().waitFor(({ payload }) => payload === 1, 'completed')).toEqualTypeOf<JobRecord>()
await app.register(backgroundTasks, { backend: inline() })
