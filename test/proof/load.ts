/**
 * A mixed load on a real application with the real clock. Most jobs complete, the others end in every other way there
 * is; the order is fixed. Whoever offers a job writes down what must become of it before the call.
 */
import Fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import { backgroundTasks, memory, UnrecoverableError, type Health, type JobContext, type JobHandle, type JobOptions } from '../../lib/index.ts'

export const LIMITS = { maxQueueSize: 2_000, maxQueueBytes: 96 * 1_024 } as const
const RETENTION = { completed: { count: 1_000, age: 60_000 }, failed: { count: 200, age: 60_000 } } as const

/** How many of a hundred jobs. */
const SHARES = { done: 70, inline: 12, late: 5, again: 5, dead: 4, cancelled: 2, timeout: 1, expired: 1 } as const
type Kind = keyof typeof SHARES
const KINDS = Object.entries(SHARES).flatMap(([kind, share]) => Array<Kind>(share).fill(kind as Kind))

const OPTIONS: Partial<Record<Kind, JobOptions>> = {
  late: { delay: 1, priority: 1 },
  again: { attempts: 2, backoff: 1 },
  dead: { attempts: 3 },
  cancelled: { delay: 60_000 },
  timeout: { attempts: 1, timeout: 1 },
  expired: { delay: 60_000, ttl: 1 }
}

export class Load {
  readonly app: FastifyInstance = Fastify()
  readonly backend = memory()
  readonly faults: string[] = []
  offered = 0
  refused = 0
  readonly accepted: Record<Kind, number> = { done: 0, inline: 0, late: 0, again: 0, dead: 0, cancelled: 0, timeout: 0, expired: 0 }
  /** As the hooks tell it. */
  readonly told = { completed: 0, errors: 0, dead: 0 }
  inlineRuns = 0
  /** The most that was ever seen in the waiting room. */
  readonly most = { jobs: 0, bytes: 0 }
  /** Requests with a job that closes over them, and how many of those were collected. */
  requests = 0
  collected = 0
  readonly #requests = new FinalizationRegistry(() => { this.collected++ })

  get jobs (): number { return Object.values(this.accepted).reduce((sum, count) => sum + count, 0) }

  async open (): Promise<void> {
    const { app, told } = this
    await app.register(backgroundTasks, { ...LIMITS, retention: RETENTION, concurrency: 20, backend: this.backend })
    app.background.define('work', (payload, context) => work((payload as { kind: Kind }).kind, context))
    app.background.addHook('onTaskEnd', () => { told.completed++ })
    app.background.addHook('onTaskError', () => { told.errors++ })
    app.background.addHook('onTaskDead', () => { told.dead++ })
    app.post('/', async (request, reply) => {
      this.#requests.register(request, undefined)
      this.requests++
      this.accepted.inline++
      reply.background(() => { this.#read(request) })
      return reply.code(202).send()
    })
    await app.ready()
  }

  #read (request: FastifyRequest): void {
    if ((request.body as { text: string }).text !== 'body') this.faults.push('a request lost its body')
    this.inlineRuns++
  }

  async request (): Promise<void> {
    const { statusCode } = await this.app.inject({ method: 'POST', url: '/', payload: { text: 'body' } })
    if (statusCode !== 202) this.faults.push(`a request got ${statusCode}`)
  }

  /** Offers so many jobs without letting one start in between. */
  async offer (jobs: number): Promise<void> {
    for (let n = 0; n < jobs; n++) {
      // 37 and 100 have no common divisor: every hundred in a row has its full share of each kind, mixed.
      const kind = KINDS[(this.offered * 37) % 100] as Kind
      this.offered++
      try {
        const handle = await this.#add(kind)
        this.accepted[kind]++
        if (kind === 'cancelled' && await this.app.background.cancel(handle.id) !== 'cancelled') this.faults.push('a delayed job could not be cancelled')
        if (this.offered % 500 === 0) await this.#ask(handle)
      } catch (error) {
        if ((error as { code?: string }).code !== 'FST_BG_QUEUE_FULL') throw error
        this.refused++
      }
      this.#look()
    }
  }

  #add (kind: Kind): Promise<JobHandle> {
    const { background } = this.app
    return kind === 'inline'
      ? background.add(() => { this.inlineRuns++ })
      : background.add('work', { kind, no: this.offered, text: 'some text of no importance' }, OPTIONS[kind])
  }

  #look (): void {
    const { jobs, bytes } = this.backend.load('default')
    this.most.jobs = Math.max(this.most.jobs, jobs)
    this.most.bytes = Math.max(this.most.bytes, bytes)
  }

  /** As a client does, by the id it was given. */
  async #ask ({ id, statusUrl }: JobHandle): Promise<void> {
    const answer = await this.app.inject(statusUrl as string)
    if (answer.statusCode !== 200 || answer.json<{ jobId: string }>().jobId !== id) this.faults.push(`the status of a job that was just accepted: ${answer.statusCode}`)
    const { completed = 0, cancelled = 0, failed = 0 } = (await this.app.background.counts()).default ?? {}
    if (completed + cancelled > RETENTION.completed.count || failed > RETENTION.failed.count) this.faults.push('more jobs are kept than retention says')
  }

  /** Resolves when nothing waits for anything, delays included. Bounded by the shortness of the delays. */
  async idle (): Promise<void> {
    for (;;) {
      await this.app.background.onIdle({ timeout: 60_000 })
      const { delayed = 0 } = (await this.app.background.counts()).default ?? {}
      if (delayed === 0) return
      await new Promise((resolve) => { setImmediate(resolve) })
    }
  }

  /** Compares what was accepted with what is told to have ended. */
  async settleAccounts (): Promise<void> {
    const { accepted, told } = this
    const { totals, incidents } = (await this.app.inject('/health/jobs')).json<Health>()
    const completed = accepted.done + accepted.inline + accepted.late + accepted.again
    const dead = accepted.dead + accepted.timeout + accepted.expired
    this.#same('inline functions run', this.inlineRuns, accepted.inline)
    this.#same('told completed', told.completed, completed)
    this.#same('told dead', told.dead, dead)
    this.#same('told errors', told.errors, accepted.again + accepted.dead + accepted.timeout)
    this.#same('totals.completed', totals.completed, completed)
    this.#same('totals.deadLettered', totals.deadLettered, dead)
    this.#same('totals.cancelled', totals.cancelled, accepted.cancelled)
    this.#same('incidents.refused', incidents.refused, this.refused)
    this.#same('offered', this.offered + this.requests, this.jobs + this.refused)
    if (this.most.jobs > LIMITS.maxQueueSize || this.most.bytes > LIMITS.maxQueueBytes) this.faults.push(`the waiting room held ${this.most.jobs} jobs, ${this.most.bytes} bytes`)
  }

  #same (what: string, found: number, expected: number): void {
    if (found !== expected) this.faults.push(`${what}: ${found}, not ${expected}`)
  }
}

function work (kind: Kind, { job, signal }: JobContext): unknown {
  if (kind === 'dead') throw new UnrecoverableError('dead on purpose')
  if (kind === 'again' && job.attempt === 1) throw new Error('again, on purpose')
  if (kind === 'timeout') return new Promise<void>((resolve) => { signal.addEventListener('abort', () => { resolve() }) })
  return { ok: true }
}
