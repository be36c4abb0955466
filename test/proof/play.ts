/** Plays a sequence on a real application, with time in its hand, and lets the model watch. */
import Fastify, { type FastifyInstance, type FastifyReply } from 'fastify'
import { backgroundTasks, memory, type JobAbortedError, type JobContext, type JobHandle, type JobRecord, type FlowHandle } from '../../lib/index.ts'
import { isFinal } from '../../lib/job.ts'
import { TestClock } from '../support/clock.ts'
import { deferred } from '../support/harness.ts'
import { nested, relate, waitingFor } from './families.ts'
import { Model } from './model.ts'
import type { Body, Job, Promised, Response, Visit, Waiting } from './parts.ts'
import { SETTINGS, type How, type Member, type Op, type Spec } from './plan.ts'
import { compareCounts, compareRecord, findForgotten } from './rest.ts'
import { optionsOf, payloadOf, perform } from './work.ts'

const TOLD = { completed: 'completed', failed: 'FST_BG_JOB_FAILED', cancelled: 'FST_BG_JOB_CANCELLED' } as const
/** A job that was made, or the one that a duplicate stands for; `no`: in its payload. */
type Expected = { readonly no: number, readonly job: Job }
type Call<Name extends Op['op']> = Extract<Op, { op: Name }>

export class Play {
  readonly clock = new TestClock()
  readonly backend = memory({ clock: this.clock })
  readonly model = new Model(this.clock.monotonic)
  readonly app: FastifyInstance = Fastify()
  readonly visits: Visit[] = []
  /** Bodies that wait for their end. */
  readonly waiting: Waiting[] = []
  readonly #handles = new Map<Job, JobHandle>()
  #promised: Promised[] = []
  #idlers: Array<{ readonly idles: number, over: boolean }> = []
  unfinished: string[] = []

  async open (): Promise<void> {
    const { app } = this
    await app.register(backgroundTasks, { ...SETTINGS, backend: this.backend, routes: false, onUnfinished: (jobs) => { this.unfinished = jobs.map(({ id }) => id) } })
    app.background.define('task', (payload, context) => this.#body((payload as { no: number }).no, context))
    app.get<{ Params: { visit: string } }>('/:visit', async (request, reply) => {
      const visit = this.visits[Number(request.params.visit)] as Visit
      visit.reply = reply
      for (const spec of visit.specs) this.#stage(visit, spec)
      const end = await visit.end.promise
      if (end === 'throw') throw new Error('broken on purpose')
      return reply.code(end === 'status' ? 418 : 200).send('answer')
    })
    await app.ready()
    this.backend.watch(({ id, state }) => {
      const record = state === 'cancelled' ? this.backend.get(id) as JobRecord | undefined : undefined
      this.model.moved(id, state, record?.reason)
    })
  }

  /** Throws at the first step after which something is wrong. */
  async run (ops: readonly Op[]): Promise<void> {
    await this.open()
    for (const [at, op] of ops.entries()) {
      this.model.sweep()
      await this.#step(op)
      await this.rest(`step ${at}, ${op.op}`)
    }
  }

  async #step (op: Op): Promise<void> {
    switch (op.op) {
      case 'add': return this.#add(op.spec)
      case 'bulk': return this.#bulk(op.specs)
      case 'flow': return this.#flow(op.members)
      case 'request': return this.#request(op.specs)
      case 'stage': return pick(this.visits, op.at, (visit) => { this.#stage(visit, op.spec) })
      case 'respond': return pick(this.visits, op.at, (visit) => this.#respond(visit, op.end))
      case 'leave': return pick(this.visits, op.at, (visit) => { this.#leave(visit) })
      case 'settle': return pick(this.waiting, op.at, ({ end }) => { end(op.how) })
      case 'cancel': return pick(this.model.jobs, op.at, (job) => this.#cancel(job))
      case 'race': return pick(this.waiting, op.at, (waiting) => this.#race(waiting, op.how))
      case 'pause': case 'resume': return this.#pause(op)
      case 'retry': return this.#retry(op)
      case 'remove': return this.#remove(op)
      case 'finished': return pick(this.model.jobs.filter(({ state, gone }) => state !== 'pending' && !gone), op.at, (job) => { this.#finished(job) })
      case 'idle': return this.#idle()
      case 'advance': return this.clock.advance(op.ms)
      case 'jump': return this.clock.jump(op.ms)
    }
  }

  /** Everything comes to rest, and is compared. */
  async rest (where: string): Promise<void> {
    const { model, clock } = this
    await clock.settle()
    await clock.settle()
    const now = clock.monotonic()
    findForgotten(model, now)
    compareCounts(model, now, await this.app.background.counts())
    for (const job of model.jobs) compareRecord(model, job, now, await this.app.background.get(job.id))
    for (const { job, nth, told } of this.#promised) {
      const ended = job.ends[nth] as keyof typeof TOLD | undefined
      if (told !== (ended && TOLD[ended])) model.fault(`finished() tells ${told}, its end is ${ended}`, job)
    }
    this.#promised = this.#promised.filter(({ told }) => told === undefined)
    for (const { over, idles } of this.#idlers) {
      if (over ? model.idles === idles : model.isIdle()) model.fault(over ? 'onIdle resolved too early' : 'onIdle has not resolved')
    }
    this.#idlers = this.#idlers.filter(({ over }) => !over)
    if (model.faults.length > 0) throw new Error(`${where}: ${model.faults.join('; ')}`)
  }

  // Adding

  /** Asks the model whether there is room, and it expects the jobs then: those that are not duplicates. */
  #expect (specs: Spec[], response?: Response): Expected[] | undefined {
    const { model } = this
    const seen = new Set<string>()
    let next = model.jobs.length
    const sized = specs.map((spec) => {
      const key = `${spec.queue} ${spec.once?.id}`
      const isDuplicate = response === undefined && spec.once !== null && (seen.has(key) || model.holderOf(spec) !== undefined)
      seen.add(key)
      const no = isDuplicate ? next : next++
      return { spec, no, queue: spec.queue, bytes: spec.kind === 'inline' ? 0 : Buffer.byteLength(JSON.stringify(payloadOf(no, spec))) }
    })
    if (!model.hasRoom(sized)) return undefined
    return sized.map(({ spec, no, bytes }) => {
      const holder = response === undefined ? model.holderOf(spec) : undefined
      return { no, job: holder ?? model.add(spec, bytes, Math.max(0, spec.runAt ?? spec.delay), response) }
    })
  }

  #took (jobs: Expected[] | undefined, handles: readonly JobHandle[]): void {
    if (jobs === undefined) return this.model.fault('jobs were taken for which there is no room')
    jobs.forEach(({ job }, at) => {
      const handle = handles[at] as JobHandle
      this.model.bind(job, handle.id)
      this.#handles.set(job, handle)
    })
  }

  #refused (jobs: Expected[] | undefined, error: unknown): void {
    if (jobs !== undefined || (error as { code?: string }).code !== 'FST_BG_QUEUE_FULL') this.model.fault(`refused: ${String(error)}`)
  }

  async #add (spec: Spec): Promise<void> {
    const no = this.model.jobs.length
    const jobs = this.#expect([spec])
    const { background } = this.app
    try {
      const handle = spec.kind === 'inline'
        ? await background.add((context) => this.#body(no, context), optionsOf(spec, this.clock.now()))
        : await background.add('task', payloadOf(no, spec), optionsOf(spec, this.clock.now()))
      this.#took(jobs, [handle])
    } catch (error) {
      this.#refused(jobs, error)
    }
  }

  async #bulk (given: Spec[]): Promise<void> {
    const specs = given.map((spec) => ({ ...spec, kind: 'task' as const }))
    const first = this.model.jobs.length
    const jobs = this.#expect(specs)
    try {
      this.#took(jobs, await this.app.background.addBulk(specs.map((spec, at) => ({ name: 'task', payload: payloadOf(jobs?.[at]?.no ?? first + at, spec), options: optionsOf(spec, this.clock.now()) }))))
    } catch (error) {
      this.#refused(jobs, error)
    }
  }

  async #flow (given: Member[]): Promise<void> {
    const members = given.map((member) => ({ ...member, spec: { ...member.spec, kind: 'task' as const, once: null } }))
    const first = this.model.jobs.length
    const jobs = this.#expect(members.map(({ spec }) => spec))
    if (jobs !== undefined) relate(jobs.map(({ job }) => job), members)
    const flatten = ({ job, children }: FlowHandle): JobHandle[] => [job, ...children.flatMap(flatten)]
    try {
      const flow = await this.app.background.flow(nested(members, ({ spec, ignored }, at) => ({
        name: 'task', payload: payloadOf(first + at, spec), options: { ...optionsOf(spec, this.clock.now()), ignoreDependencyOnFailure: ignored }
      })))
      this.#took(jobs, flatten(flow))
    } catch (error) {
      this.#refused(jobs, error)
    }
  }

  async #request (specs: Spec[]): Promise<void> {
    const response: Response = { state: 'open', left: false, failed: false, statusCode: 200, heldSince: NaN, jobs: [] }
    const visit: Visit = { specs, response, end: deferred(), client: new AbortController() }
    this.model.responses.push(response)
    const no = this.visits.push(visit) - 1
    this.app.inject({ url: `/${no}`, signal: visit.client.signal }).then(() => {}, () => {})
    await this.clock.settle()
    if (visit.reply === undefined) this.model.fault('the request has not reached its handler')
  }

  #stage (visit: Visit, spec: Spec): void {
    const { left, state, heldSince } = visit.response
    // Node shows no difference any more between an answer into a dead connection and one that was sent.
    if (left && state === 'over' && Number.isNaN(heldSince)) return
    const no = this.model.jobs.length
    const jobs = this.#expect([spec], visit.response)
    const reply = visit.reply as FastifyReply
    try {
      const handle = spec.kind === 'inline'
        ? reply.background((context) => this.#body(no, context), optionsOf(spec, this.clock.now(), true))
        : reply.background('task', payloadOf(no, spec), optionsOf(spec, this.clock.now(), true))
      this.#took(jobs, [handle])
    } catch (error) {
      this.#refused(jobs, error)
    }
  }

  async #respond (visit: Visit, end: 'ok' | 'status' | 'throw'): Promise<void> {
    const { response } = visit
    if (response.state === 'open') {
      response.state = 'over'
      response.failed = end === 'throw'
      response.statusCode = end === 'ok' ? 200 : end === 'status' ? 418 : 500
    }
    visit.end.resolve(end)
    await this.clock.settle()
  }

  #leave (visit: Visit): void {
    if (visit.response.state === 'open') visit.response.left = true
    visit.client.abort()
  }

  // Bodies

  #body (no: number, context: JobContext): unknown {
    const { model } = this
    const body = model.begin(context.job.id, context.job.attempt)
    if (model.jobs[no] !== body.job) model.fault('the body has the payload of another job', body.job)
    const children = context.children.map(({ state }) => state)
    if (String(children) !== String(body.job.family?.shown ?? [])) model.fault(`its children are shown as ${String(children)}`, body.job)
    const step = body.job.spec.steps[body.job.steps++] ?? { how: 'done' }
    if ('how' in step) {
      model.settled(body, step.how)
      return perform(step.how)
    }
    return new Promise((resolve, reject) => {
      const waiting: Waiting = {
        body,
        end: (how) => {
          const at = this.waiting.indexOf(waiting)
          if (at === -1) return
          this.waiting.splice(at, 1)
          model.settled(body, how)
          try { resolve(perform(how)) } catch (error) { reject(error) }
        }
      }
      this.waiting.push(waiting)
      context.signal.addEventListener('abort', () => {
        model.aborted(body, (context.signal.reason as JobAbortedError).reason)
        if (step.wait !== 'ignores') waiting.end(step.wait === 'returns' ? 'done' : 'throw')
      })
    })
  }

  // Steering

  async #cancel (job: Job): Promise<void> {
    const expected = job.gone ? undefined : isFinal(job.state) ? 'final' : job.state === 'active' ? 'cancelling' : 'cancelled'
    if (expected === 'cancelling') (job.body as Body).cancelled = true
    const along = waitingFor(job)
    this.model.allowed = { cancel: job }
    const answer = await this.app.background.cancel(job.id)
    this.model.allowed = {}
    for (const child of along) if (child.state !== 'cancelled') this.model.fault('its parent was cancelled, and it was not', child)
    if (answer !== expected) this.model.fault(`cancel answers ${answer}, not ${expected}`, job)
  }

  async #race ({ body, end }: Waiting, how: How): Promise<void> {
    const { job } = body
    body.raced = true
    this.model.allowed = { cancel: job }
    end(how)
    const answer = await this.app.background.cancel(job.id)
    this.model.allowed = {}
    if (answer === 'cancelling' && job.body !== undefined) job.body.cancelled = true
    else if (answer === 'cancelling') job.cancelling = true
    else if (answer === undefined ? !job.gone : !isFinal(job.state)) this.model.fault(`cancel answers ${answer}, and the job goes on`, job)
  }

  async #pause ({ op, queue }: Call<'pause' | 'resume'>): Promise<void> {
    for (const one of this.model.queues.values()) if (queue === null || one.name === queue) one.paused = op === 'pause'
    await this.app.background[op](queue ?? undefined)
  }

  async #retry ({ at, rate, dryRun }: Call<'retry'>): Promise<void> {
    const dead = this.model.deadLetters
    const one = at === null ? undefined : dead[at % dead.length]
    if (at !== null && one === undefined) return
    const matched = one === undefined ? dead : [one]
    const retried = dryRun ? [] : matched.filter((job) => job.spec.kind === 'task' && !this.model.isAlive(job))
    this.model.allowed = { revive: new Map(retried.map((job, nth) => [job, rate === null ? 0 : nth * 1_000 / rate])) }
    try {
      const answer = await this.app.background.deadLetters.retry(one?.id ?? {}, { dryRun, ratePerSecond: rate ?? undefined })
      if (answer.matched !== matched.length || answer.done !== retried.length) this.model.fault(`retry answers ${JSON.stringify(answer)}`)
    } catch (error) {
      const refusable = one !== undefined && (one.spec.kind === 'inline' || this.model.isAlive(one))
      if (!refusable || dryRun || (error as { code?: string }).code !== 'FST_BG_NOT_RETRYABLE') this.model.fault(`retry: ${String(error)}`)
    }
    this.model.allowed = {}
    for (const job of retried) if (job.state === 'failed') this.model.fault('it was to be retried', job)
  }

  async #remove ({ at }: Call<'remove'>): Promise<void> {
    const dead = this.model.deadLetters
    const one = at === null ? undefined : dead[at % dead.length]
    if (at !== null && one === undefined) return
    const removed = one === undefined ? dead : [one]
    const answer = await this.app.background.deadLetters.remove(one?.id ?? {})
    if (answer.matched !== removed.length || answer.done !== removed.length) this.model.fault(`remove answers ${JSON.stringify(answer)}`)
    for (const job of removed) this.model.remove(job)
  }

  #finished (job: Job): void {
    const promised: Promised = { job, nth: job.ends.length - (isFinal(job.state) ? 1 : 0) }
    this.#promised.push(promised)
    ;(this.#handles.get(job) as JobHandle).finished().then(() => { promised.told = 'completed' }, (error: { code: string }) => { promised.told = error.code })
  }

  #idle (): void {
    const idler = { idles: this.model.isIdle() ? -1 : this.model.idles, over: false }
    this.#idlers.push(idler)
    this.app.background.onIdle().then(() => { idler.over = true }, () => {})
  }
}

function pick<T> (items: readonly T[], at: number, use: (item: T) => void | Promise<void>): void | Promise<void> {
  const item = items[at % items.length]
  return item === undefined ? undefined : use(item)
}
