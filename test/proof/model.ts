/**
 * A small model of the jobs' life, written from the contract and not from lib/. It is told what is asked for, hears
 * every move and every start, and writes down a fault for each that has no cause. `rest` then asks the other way
 * round: whether anything that had to happen has not. Where the contract leaves the order open (two deadlines in the
 * same millisecond) the model follows what it hears.
 */
import type { AbortKind } from '../../lib/errors.ts'
import { isFinal, MOVES, type CancelReason, type JobState } from '../../lib/job.ts'
import type { Body, Job, Queue, Response } from './parts.ts'
import * as families from './families.ts'
import { SETTINGS, type How, type QueueName, type Spec } from './plan.ts'
import { comes, firstInTurn, isFull, isLimited, leaves } from './turns.ts'
import { fateOf, verdictOf, type Verdict } from './verdict.ts'

/** Timers may be a millisecond early. */
const EARLY = 1

export class Model {
  readonly faults: string[] = []
  readonly jobs: Job[] = []
  readonly byId = new Map<string, Job>()
  readonly responses: Response[] = []
  readonly queues = new Map<string, Queue>()
  /** Jobs of the call that is on its way: what is heard of an unknown id is about the first of them. */
  adding: Job[] = []
  /** What a call on its way may do to the job. */
  allowed: { readonly cancel?: Job, readonly revive?: ReadonlyMap<Job, number> } = {}
  readonly #now: () => number
  readonly #holders = new Map<string, { readonly job: Job, readonly until: number }>()
  readonly #kept = { completed: [] as Job[], failed: [] as Job[] }
  #order = 0
  closingSince = Infinity
  /** The shutdown may have begun to stop: its time was up, or there was a moment with nothing to wait for. */
  stopped = false
  /** Moments without anything to do, for `onIdle`. */
  idles = 0

  constructor (now: () => number) {
    this.#now = now
    for (const name of ['default', 'mail', 'api'] as const) {
      const concurrency = name === 'default' ? SETTINGS.concurrency : SETTINGS.queues[name].concurrency
      this.queues.set(name, { name, concurrency, paused: false, alive: new Set(), coming: [], starts: [], groupStarts: [] })
    }
  }

  fault (text: string, job?: Job): void {
    this.faults.push(job === undefined ? text : `job ${this.jobs.indexOf(job)} (${job.spec.queue}, ${job.state}): ${text}`)
  }

  queueOf (job: Job): Queue { return this.queues.get(job.spec.queue) as Queue }

  /** Whether the jobs find room: all or none. */
  hasRoom (specs: ReadonlyArray<{ queue: QueueName, bytes: number }>): boolean {
    for (const name of this.queues.keys()) {
      const asked = specs.filter(({ queue }) => queue === name)
      if (asked.length === 0) continue
      const load = this.jobs.filter((job) => job.spec.queue === name && job.neverStarted)
      if (load.length + asked.length > SETTINGS.maxQueueSize) return false
      if ([...load, ...asked].reduce((sum, { bytes }) => sum + bytes, 0) > SETTINGS.maxQueueBytes) return false
    }
    return true
  }

  add (spec: Spec, bytes: number, delay: number, response?: Response): Job {
    const now = this.#now()
    const job: Job = {
      spec, bytes, response, id: '', state: 'pending', gone: false, attemptsMade: 0, steps: 0, neverStarted: true,
      notBefore: now + delay, expires: spec.ttl === 0 ? Infinity : now + spec.ttl, until: now + delay, delayReason: undefined,
      ready: 0, endedAt: 0, ends: [], verdict: {}, body: undefined
    }
    this.jobs.push(job)
    this.adding.push(job)
    this.#hold(job)
    if (response !== undefined) {
      response.jobs.push(job)
      if (Number.isNaN(response.heldSince)) response.heldSince = now
    }
    return job
  }

  bind (job: Job, id: string): void {
    if (job.id !== '' && job.id !== id) this.fault(`handle has another id than the job that moved`, job)
    if ((this.byId.get(id) ?? job) !== job) this.fault('its handle is that of another job', job)
    job.id = id
    this.byId.set(id, job)
    this.adding = this.adding.filter((other) => other !== job)
  }

  /** Every change of state, as the backend tells it; of a cancelled job, the reason it is given. */
  moved (id: string, to: JobState, reason?: CancelReason): void {
    if (!this.byId.has(id) && this.adding[0] !== undefined) this.bind(this.adding[0], id)
    const job = this.byId.get(id)
    if (job === undefined || job.gone) return this.fault(`a job that is not known became ${to}`)
    if (!MOVES[job.state].includes(to)) this.fault(`cannot become ${to}`, job)
    const now = this.#now()
    this.stops(now) // there may have been nothing to wait for until this very move
    const cause = job.state === 'active' ? this.#judged(job, to, now) : families.kept(job, to) ?? this.#moves(job, to, now, reason)
    if (cause !== undefined) this.fault(`became ${to} at ${now}: ${cause}`, job)
    const from = job.state
    job.state = to
    if (to === 'waiting') {
      job.ready = ++this.#order
      comes(this.queueOf(job), job)
    } else if (from === 'waiting' && to !== 'active') leaves(this.queueOf(job), job, this.#waitingIn(this.queueOf(job)))
    if (from === 'failed' && job.spec.once?.ttl === 0) this.#hold(job)
    if (isFinal(to)) this.#end(job, to, now)
    if (this.isIdle()) this.idles++
    this.stops(now)
  }

  /** Whether a shutdown may cancel and abort. */
  stops (now: number): boolean {
    if (now >= this.closingSince + SETTINGS.drainTimeout || (now >= this.closingSince && this.isQuiet())) this.stopped = true
    return this.stopped
  }

  /** A fault's text where an active job's move is not what its body earned. */
  #judged (job: Job, to: JobState, now: number): string | undefined {
    const body = job.body
    if (body === undefined) {
      // Delivered, it waited for its turn of the loop, and was cancelled there.
      const { coming } = this.queueOf(job)
      coming.splice(coming.indexOf(job), 1)
      job.verdict = { state: 'cancelled', reason: 'user' }
      return job.cancelling === true && to === 'cancelled' ? undefined : 'its body never began'
    }
    const late = job.spec.timeout > 0 && now >= body.startedAt + 10 * job.spec.timeout - EARLY
    const closed = now >= this.closingSince + SETTINGS.abortGrace - EARLY
    if (body.settled === undefined) {
      if (body.aborted === undefined || !(late || closed)) return 'its body runs, and was not given up'
      body.givenUp = true
    } else this.queueOf(job).alive.delete(body)
    const verdict = this.#verdict(body, to, closed)
    job.body = undefined
    job.verdict = verdict
    if (verdict.uncharged === true) job.attemptsMade--
    if (verdict.state === 'delayed') {
      job.until = now + (verdict.delay ?? 0)
      job.delayReason = 'retry'
    }
    return verdict.state === to ? undefined : `its body ended as ${JSON.stringify(body.settled)}, aborted by ${body.aborted}: ${verdict.state}`
  }

  #verdict (body: Body, to: JobState, closed: boolean): Verdict {
    if (body.raced && to === 'cancelled') return { state: to, reason: 'user' }
    // A body that outlives the shutdown's grace is cut off by it, whatever had aborted it before; a cancel stays one.
    if (body.settled === undefined && closed && to === 'cancelled') return { state: to, reason: body.cancelled ? 'user' : 'shutdown' }
    return verdictOf(body)
  }

  #moves (job: Job, to: JobState, now: number, reason: CancelReason | undefined): string | undefined {
    if (to === 'failed') {
      job.verdict = { state: 'failed', failure: job.family?.broken === true ? 'unrecoverable' : 'expired' }
      if (job.family?.broken === true) return undefined
      return job.neverStarted && now >= job.expires - EARLY ? undefined : 'its time to live is not over'
    }
    if (to === 'cancelled') return this.#cancels(job, now, reason)
    if (to === 'waiting-children') return undefined
    if (job.state === 'pending' || job.state === 'waiting-children') return this.#released(job, to, now)
    if (job.state === 'failed') {
      const delay = this.allowed.revive?.get(job)
      if (delay === undefined) return 'nobody asked for a retry'
      const kept = this.#kept.failed
      kept.splice(kept.indexOf(job), 1)
      job.attemptsMade = 0
      job.verdict = {}
      job.delayReason = 'retry'
      job.until = now + delay
      return to === (delay > 0 ? 'delayed' : 'waiting') ? undefined : `it is to be retried in ${delay} ms`
    }
    if (job.state === 'delayed' && to === 'waiting') return now >= job.until - EARLY ? undefined : `it is delayed until ${job.until}`
    if (job.state === 'waiting' && to === 'active') return this.#starts(job, now)
    return 'no reason is known'
  }

  #released (job: Job, to: JobState, now: number): string | undefined {
    job.delayReason = 'delay'
    if (job.response !== undefined) {
      if (!this.isOver(job.response, now)) return 'the response is not over'
      if (fateOf(job.response, job.spec) !== 'run') return 'its response did not end as it asked'
      const before = job.response.jobs.slice(0, job.response.jobs.indexOf(job))
      if (before.some((other) => other.state === 'pending' && fateOf(job.response as Response, other.spec) === 'run')) return 'one staged before it still waits'
    }
    return to === (job.notBefore > now ? 'delayed' : 'waiting') ? undefined : `it may start at ${job.notBefore}`
  }

  /** An open response is over for its jobs after `maxHold`, judged as it stands. */
  isOver (response: Response, now: number): boolean {
    if (now >= response.heldSince + SETTINGS.maxHold - EARLY) response.state = 'over'
    return response.state === 'over'
  }

  #cancels (job: Job, now: number, reason: CancelReason | undefined): string | undefined {
    const { state, response } = job
    const fate = state === 'pending' && response !== undefined && this.isOver(response, now) ? fateOf(response, job.spec) : 'run'
    // In the end of a shutdown a response may be over in the same millisecond.
    const reasons: Array<string | undefined> = families.isUnder(job, this.allowed.cancel) ? ['user'] : [fate, this.stops(now) ? 'shutdown' : 'run']
    job.verdict = { state: 'cancelled', reason }
    return reasons.includes(reason) ? undefined : `nobody cancelled it for the reason ${reason}`
  }

  #starts (job: Job, now: number): string | undefined {
    const queue = this.queueOf(job)
    const first = firstInTurn(queue, job, this.#waitingIn(queue))
    const full = isFull(queue, job, this.jobs)
    const limited = isLimited(queue, job, now)
    const free = this.freeSlots(queue)
    job.attemptsMade++
    job.neverStarted = false
    families.shows(job)
    queue.coming.push(job)
    if (queue.paused) return 'the queue is paused'
    if (free <= 0) return 'no slot is free'
    if (this.isLimited(queue, now, queue.coming.length - 1)) return 'the limiter forbids it'
    if (full) return 'its group has no slot free'
    if (limited) return 'the limiter of its group forbids it'
    if (first !== job) return `job ${this.jobs.indexOf(first as Job)} comes before it`
    if (now > this.closingSince + SETTINGS.drainTimeout) return 'the shutdown is out of time'
    return undefined
  }

  #waitingIn (queue: Queue): Job[] {
    return this.jobs.filter((job) => job.spec.queue === queue.name && job.state === 'waiting' && !job.gone)
  }

  /** The job that has the deduplication id of this one. */
  holderOf ({ once, queue, kind }: Spec): Job | undefined {
    const holder = once === null ? undefined : this.#holders.get(`${queue} ${kind} ${once.id}`)
    return holder !== undefined && holder.until > this.#now() ? holder.job : undefined
  }

  #hold (job: Job): void {
    const { once, queue, kind } = job.spec
    if (once === null || job.response !== undefined || this.holderOf(job.spec) !== undefined) return
    this.#holders.set(`${queue} ${kind} ${once.id}`, { job, until: once.ttl === 0 ? Infinity : this.#now() + once.ttl })
  }

  #letGo (job: Job, to: JobState): void {
    if (job.spec.once === null || (job.spec.once.ttl > 0 && to !== 'cancelled')) return
    for (const [key, holder] of this.#holders) if (holder.job === job) this.#holders.delete(key)
  }

  freeSlots (queue: Queue): number { return queue.concurrency - queue.alive.size - queue.coming.length }

  isLimited (queue: Queue, now: number, granted = queue.coming.length): boolean {
    if (queue.name !== 'api') return false
    const { max, duration } = SETTINGS.queues.api.limiter
    return queue.starts.filter((start) => start > now - duration).length + granted >= max
  }

  /** Only its queue's limiter, or that of its group, keeps a waiting job from starting. */
  isHeldBack (job: Job, now: number): boolean {
    const queue = this.queueOf(job)
    return this.isLimited(queue, now) || isLimited(queue, job, now)
  }

  mayStart (job: Job, now: number): boolean {
    return job.state === 'waiting' && !isFull(this.queueOf(job), job, this.jobs) && !this.isHeldBack(job, now)
  }

  /** A body begins. */
  begin (id: string, attempt: number): Body {
    const now = this.#now()
    const job = this.byId.get(id) as Job
    const queue = this.queueOf(job)
    if (queue.coming[0] !== job) this.fault('its body began out of turn, or was not delivered', job)
    queue.coming.splice(queue.coming.indexOf(job), 1)
    if (attempt !== job.attemptsMade) this.fault(`the body is told attempt ${attempt}, not ${job.attemptsMade}`, job)
    if ([...queue.alive].some((other) => other.job === job && !other.givenUp)) this.fault('two attempts at once', job)
    if (this.isLimited(queue, now, 0)) this.fault(`the body is one more than the limiter allows`, job)
    if (isLimited(queue, job, now, 0)) this.fault(`the body is one more than the limiter of its group allows`, job)
    queue.starts.push(now)
    if (job.spec.group !== null) queue.groupStarts.push({ group: job.spec.group, at: now })
    const body: Body = { job, attempt, startedAt: now, cancelled: false, raced: this.allowed.cancel === job, givenUp: false }
    queue.alive.add(body)
    job.body = body
    if (queue.alive.size > queue.concurrency) this.fault(`${queue.alive.size} bodies alive`, job)
    return body
  }

  aborted (body: Body, kind: AbortKind): void {
    const now = this.#now()
    const { job } = body
    if (body.aborted !== undefined) return this.fault('its signal aborted twice', job)
    body.aborted = kind
    if (kind === 'timeout' && !(job.spec.timeout > 0 && now >= body.startedAt + job.spec.timeout - EARLY)) this.fault('timed out too early', job)
    if (kind === 'cancel' && this.allowed.cancel !== job) this.fault('its signal says cancel, and nobody cancelled', job)
    if (kind === 'shutdown' && !this.stops(now)) this.fault('its signal says shutdown too early', job)
  }

  /** Whether a body of the job goes on, after it was given up. */
  isAlive (job: Job): boolean {
    return [...this.queueOf(job).alive].some((body) => body.job === job)
  }

  /** A body has ended. If its job went on without it, only its slot matters. */
  settled (body: Body, how: How): void {
    body.settled = how
    if (body.givenUp) this.queueOf(body.job).alive.delete(body)
  }

  #end (job: Job, to: JobState, now: number): void {
    job.neverStarted = false
    job.endedAt = now
    job.ends.push(to)
    families.ended(job, to)
    this.#letGo(job, to)
    this.#kept[to === 'failed' ? 'failed' : 'completed'].push(job)
    this.sweep()
  }

  /** What retention lets go. */
  sweep (): void {
    for (const [kind, kept] of Object.entries(this.#kept) as Array<['completed' | 'failed', Job[]]>) {
      const { count, age } = SETTINGS.retention[kind]
      while (kept[0] !== undefined && (kept.length > count || this.#now() - kept[0].endedAt > age)) this.#forget(kept[0], kept)
    }
  }

  remove (job: Job): void { this.#forget(job, this.#kept.failed) }

  #forget (job: Job, kept: Job[]): void {
    kept.splice(kept.indexOf(job), 1)
    job.gone = true
  }

  /** In the order of making. */
  get deadLetters (): Job[] { return this.jobs.filter((job) => job.state === 'failed' && !job.gone) }

  isIdle (): boolean {
    return !this.jobs.some(({ state, delayReason }) => state === 'pending' || state === 'waiting' || state === 'active' || (state === 'delayed' && delayReason === 'retry'))
  }

  /** Nothing that a shutdown waits for: no job that could start or end now. */
  isQuiet (): boolean {
    const ignores = (job: Job): boolean => job.body?.aborted !== undefined
    return !this.jobs.some((job) => job.state === 'pending' || (job.state === 'waiting' && !this.queueOf(job).paused) || (job.state === 'active' && !ignores(job)))
  }
}
