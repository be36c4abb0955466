/** An application with the plugin, time in the test's hand and its log lines in an array. */
import Fastify, { type FastifyInstance, type FastifyRegisterOptions, type FastifyServerOptions } from 'fastify'
import { backgroundTasks, memory, type Background, type BackgroundTasksOptions, type JobRecord } from '../../lib/index.ts'
import { TestClock } from './clock.ts'

interface TestLike {
  teardown (handler: () => unknown): void
}

export interface Line extends Record<string, unknown> {
  level: number
  msg: string
}

export interface Harness {
  app: FastifyInstance
  clock: TestClock
  /** Everything that was logged. */
  lines: Line[]
  /** Lines of the plugin about jobs, without Fastify's own about requests. */
  said: (text?: string) => Line[]
  background: Background
}

export interface HarnessOptions extends BackgroundTasksOptions {
  server?: FastifyServerOptions
  /** Called before the plugin is registered. */
  before?: (app: FastifyInstance) => void
}

export const LEVELS = { info: 30, warn: 40, error: 50 } as const

const fastifysOwn = /^(incoming request|request completed|Server listening|Server closed)/

/** Not ready yet: define tasks and add routes, then `await app.ready()`. */
export async function setup (t: TestLike, { server, before, ...options }: HarnessOptions = {}): Promise<Harness> {
  const clock = new TestClock()
  const lines: Line[] = []
  const stream = { write (line: string) { lines.push(JSON.parse(line) as Line) } }
  const app = Fastify({ logger: { level: 'trace', stream }, ...server } as FastifyServerOptions)
  t.teardown(() => closeInTime(app, clock))
  before?.(app)
  await app.register(backgroundTasks, { backend: memory({ clock }), ...options } as FastifyRegisterOptions<BackgroundTasksOptions>)
  return {
    app,
    clock,
    lines,
    said: (text) => lines.filter(({ msg }) => text === undefined ? !fastifysOwn.test(msg) : msg === text),
    get background () { return app.background }
  }
}

/** Closes, and lets as much time pass as the jobs left over need. */
export async function closeInTime (app: FastifyInstance, clock: TestClock): Promise<void> {
  let closed = false
  const closing = app.close().then(() => {}, () => {}).finally(() => { closed = true })
  const end = performance.now() + 30_000 // of real time, which sockets need
  while (!closed && performance.now() < end) await clock.advance(10_000)
  if (!closed) throw new Error('close() hangs')
  await closing
}

export interface Deferred<T = void> {
  promise: Promise<T>
  resolve: (value: T) => void
  reject: (reason: unknown) => void
}

export function deferred<T = void> (): Deferred<T> {
  let resolve!: (value: T) => void
  let reject!: (reason: unknown) => void
  const promise = new Promise<T>((yes, no) => { resolve = yes; reject = no })
  return { promise, resolve, reject }
}

/** Jobs in any state, in all queues. */
export async function jobsKept (background: Background): Promise<number> {
  let sum = 0
  for (const { pending, waiting, delayed, active, completed, failed, cancelled } of Object.values(await background.counts())) {
    sum += pending + waiting + delayed + active + completed + failed + cancelled
  }
  return sum
}

export async function record (background: Background, id: string): Promise<JobRecord> {
  const found = await background.get(id)
  if (found === undefined) throw new Error(`no job ${id}`)
  return found
}

/** Resolves once the check holds, looking again in each turn of the loop. Turns are short: what comes from outside gets its time too. */
export async function until (holds: () => unknown): Promise<void> {
  const end = performance.now() + 30_000
  for (let turn = 0; turn < 100_000 || performance.now() < end; turn++) {
    if (await holds()) return
    await new Promise((resolve) => { setImmediate(resolve) })
  }
  throw new Error('waited in vain')
}
