/**
 * Jobs in Redis or PostgreSQL, kept by BullMQ and shared by any number of processes: at least once, since a job whose
 * worker dies runs again. BullMQ does what it has (locks, stalled jobs, delays, priorities, rate limits); what it has
 * not is done here or above: timeouts of attempts, cancelling in another process, dead letters, pending jobs.
 */
import type { Job } from 'bullmq'
import type { Backend, BackendSettings, CancelAnswer, Change, FlowStore, JobQuery, Load, Note, QueueCounts, QueueSettings, Sink, Tally } from '../../backend.ts'
import { systemClock, type Timer } from '../../clock.ts'
import { errors } from '../../errors.ts'
import type { Attempt, CancelReason, JobRecord, NewJob, Outcome, Duplicates, FlowNode } from '../../job.ts'
import type { Copied } from '../../json.ts'
import { TASK_DEFAULTS } from '../../job-options.ts'
import { Adding } from './adding.ts'
import type { StoredAttempt } from './attempt.ts'
import { Coder } from './codec.ts'
import { Connections } from './connections.ts'
import { Events } from './events.ts'
import type { ChildRef } from './facts.ts'
import { childrenIn, jobsOf, removeAlone, toFlow } from './flows.ts'
import { resolveBullmqOptions, type BullmqOptions, type BullmqSettings } from './options.ts'
import { BullmqQueue } from './queue.ts'
import { isRefusal, Reach } from './reach.ts'
import { Reader } from './reader.ts'
import { DeadLetterRoom } from './retention.ts'
import { BullmqSchedules } from './schedules.ts'

export type { BullmqOptions } from './options.ts'
export type { Codec } from './codec.ts'

/**
 * @throws FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION; at `ready()` FST_BG_PEER_MISSING, FST_BG_STORE_UNAVAILABLE
 */
export function bullmq (options: BullmqOptions): Backend {
  return new Bullmq(resolveBullmqOptions(options))
}

/** Ms beyond `maxHold` after which a staged job starts by itself: its process must have died. */
const HOLD_MARGIN = 10_000
/** Ms for the first connection, and for what BullMQ has to create in PostgreSQL. Fastify waits 10 s for us. */
const BOOT = 8_000
/** Ms that closing waits for what is being stored. */
const LAST_WORDS = 2_000

/** Between `start` and `close`. */
interface Started {
  readonly sink: Sink
  readonly settings: BackendSettings
  readonly connections: Connections
  readonly events: Events
  readonly reader: Reader
}

class Bullmq implements Backend {
  readonly name = 'bullmq'
  readonly durable = true
  readonly capabilities = { inline: false, delay: true, ttl: true, priority: true, limiter: true, deduplication: true, groups: false, cancelled: false, patch: true }
  readonly schedules: BullmqSchedules
  readonly #settings: BullmqSettings
  readonly #coder: Coder
  readonly #clock = systemClock
  readonly #reach: Reach
  readonly #queues = new Map<string, BullmqQueue>()
  readonly #deadLetters = new Map<BullmqQueue, DeadLetterRoom>()
  readonly flows: FlowStore = { add: (root) => this.#addFlow(root) }
  readonly #adding: Adding
  /** Retries of dead letters that were asked for one after the other. */
  readonly #spaced = new Set<Timer>()
  #opening: Promise<Connections> | undefined
  #started: Started | undefined
  /** From the first attempt that is wanted on, other processes can cancel what runs here. */
  #listening = false
  #closing: Promise<void> | undefined

  constructor (settings: BullmqSettings) {
    this.#settings = settings
    this.#coder = new Coder(settings.codec)
    this.#adding = new Adding((name) => this.#queue(name), () => this.#up.settings.maxHold + HOLD_MARGIN, this.#clock)
    const steer = (): void => { for (const queue of this.#queues.values()) queue.steer() }
    this.#reach = new Reach({
      clock: this.#clock,
      callTimeout: settings.callTimeout,
      probe: async () => this.#up.connections.control.getBackend().hasQueueMetaField('paused'),
      lost: (error) => {
        steer()
        this.#started?.sink.report({ kind: 'lost', error })
      },
      back: (awayMs) => {
        this.#started?.sink.report({ kind: 'back', awayMs })
        steer()
      }
    })
    this.schedules = new BullmqSchedules({
      clock: this.#clock,
      coder: this.#coder,
      reach: this.#reach,
      lockDuration: settings.lockDuration,
      enqueue: (job) => this.#queue(job.queue).enqueue([job], 0),
      isAlive: async (id) => !['completed', 'failed', undefined].includes((await this.#up.reader.find(id))?.state),
      tell: () => this.#up.events.tellScheduled()
    })
  }

  get unreachable (): boolean { return this.#reach.away }

  async start (sink: Sink, settings: BackendSettings): Promise<void> {
    if (this.#opening !== undefined) throw new errors.BadOption('options.backend', 'a bullmq() of its own', 'one that belongs to another application')
    for (const name of settings.queues.keys()) {
      if (name.includes(':')) throw new errors.BadOption(`options.queues, "${name}"`, 'on BullMQ a name without ":"', 'one with')
    }
    this.#opening = Connections.open(this.#settings, this.#clock, (error) => { if (!isRefusal(error)) this.#reach.lose(error) })
    const connections = await this.#opening
    for (const [name, queue] of settings.queues) this.#addQueue(name, queue, sink, settings, connections)
    const parts = { clock: this.#clock, coder: this.#coder, reach: this.#reach, queues: this.#queues, deadLetters: this.#deadLetters }
    this.#started = {
      sink,
      settings,
      connections,
      events: new Events(this.#clock, connections, new Map([...this.#queues].map(([name, { store }]) => [name, store])), (id) => this.#adding.isStaged(id)),
      reader: new Reader({ ...parts, completedAge: settings.retention.completed.age })
    }
    this.schedules.start(connections, sink, settings)
    try {
      await this.#reach.bounded(() => connections.control.waitUntilReady(), undefined, BOOT)
      await Promise.all([...this.#queues.values()].map(({ room }) => room.refresh()))
    } catch (error) {
      await this.close()
      throw error
    }
  }

  want (name: string, n: number): void {
    this.#queue(name).want(n)
    if (n > 0) this.#listen()
  }

  settle (attempt: Attempt, outcome: Outcome): Promise<void> | undefined {
    return this.#queue(attempt.job.queue).settle(attempt as StoredAttempt, outcome)
  }

  note (attempt: Attempt, note: Note): Promise<void> {
    return this.#queue(attempt.job.queue).note(attempt as StoredAttempt, note)
  }

  enqueue (jobs: readonly NewJob[], staged: boolean): Promise<Duplicates> {
    return this.#adding.enqueue(jobs, staged)
  }

  release (ids: readonly string[]): Promise<void> {
    return this.#adding.release(ids)
  }

  async cancel (id: string, reason: CancelReason, detail: string): Promise<CancelAnswer> {
    return this.#reach.bounded(async () => {
      for (;;) {
        if (this.#abort(id, detail)) return 'cancelling'
        const found = await this.#up.reader.find(id)
        if (found === undefined) return undefined
        const { queue, state } = found
        if (state === 'completed' || state === 'failed') return 'final'
        if (state === 'active') {
          await this.#up.events.askToCancel(id, detail)
          return 'cancelling'
        }
        const children = state === 'waiting-children' ? childrenIn(await queue.store.getJob(id) as Job | undefined) : []
        if (await queue.takeOut(id)) {
          this.#adding.forget(id)
          await this.#up.events.tellCancelled(queue.store, id)
          for (const child of children) await this.#cancelChild(child, reason)
          return 'cancelled'
        } // it has just started: look again
      }
    })
  }

  /** With its parent, unless it runs. */
  async #cancelChild ([name, id]: ChildRef, reason: CancelReason): Promise<void> {
    const queue = this.#queue(name)
    const job = await queue.store.getJob(id) as Job | undefined
    if (job === undefined || !await queue.takeOut(id)) return
    this.#up.sink.report({ kind: 'cancelled', job: queue.jobOf(job), reason })
    await this.#up.events.tellCancelled(queue.store, id)
    for (const child of childrenIn(job)) await this.#cancelChild(child, reason)
  }

  async #addFlow (root: FlowNode): Promise<void> {
    const jobs = jobsOf(root)
    for (const { queue } of jobs) this.#queue(queue) // throws before anything has changed
    const flow = toFlow(root, (job) => this.#queue(job.queue).toAdd(job))
    await this.#reach.bounded(() => this.#up.connections.addFlow(flow), () => { for (const { id, queue } of jobs) this.#queue(queue).takeBack(id) })
    for (const { queue, bytes } of jobs) this.#queue(queue).room.enter(1, bytes)
  }

  async retry (ids: readonly string[], spacing: number, payloads?: ReadonlyMap<string, Copied>): Promise<number> {
    let done = 0
    for (const id of new Set(ids)) {
      const found = await this.#reach.bounded(() => this.#up.reader.find(id))
      if (found?.state !== 'failed') continue
      const payload = payloads?.get(id)
      if (done > 0 && spacing > 0) this.#reviveIn(done * spacing, found.queue, id, payload)
      else if (!await this.#reach.bounded(() => found.queue.revive(id, payload))) continue
      done++
    }
    return done
  }

  async remove (ids: readonly string[]): Promise<number> {
    let done = 0
    for (const id of new Set(ids)) {
      const found = await this.#reach.bounded(() => this.#up.reader.find(id))
      if (found?.state !== 'completed' && found?.state !== 'failed') continue
      if (await this.#reach.bounded(() => removeAlone(found.queue.store, id))) done++
    }
    return done
  }

  promote (id: string): Promise<boolean> { return this.#reach.bounded(() => this.#up.reader.promote(id)) }
  get (id: string): Promise<JobRecord | undefined> { return this.#reach.bounded(() => this.#up.reader.get(id)) }
  list (query: JobQuery): Promise<JobRecord[]> { return this.#up.reader.list(query) }
  tally (): Promise<Tally[]> { return this.#reach.unlessAway(() => this.#up.reader.tally()) }

  counts (): Promise<Record<string, QueueCounts>> {
    return this.#reach.unlessAway(async () => {
      const counted = await Promise.all([...this.#queues].map(async ([name, queue]) => [name, await queue.counts()] as const))
      return Object.assign(Object.create(null) as Record<string, QueueCounts>, Object.fromEntries(counted))
    })
  }

  load (queue: string): Load {
    return this.#queue(queue).room
  }

  watch (listener: (change: Change) => void): Promise<() => void> {
    return this.#reach.bounded(() => this.#up.events.watch(listener))
  }

  close (): Promise<void> {
    return (this.#closing ??= this.#close())
  }

  async #close (): Promise<void> {
    await this.#opening?.catch(() => {}) // `start` tells it
    if (this.#started === undefined) return
    const { connections, events } = this.#started
    for (const timer of this.#spaced) this.#clock.clearTimer(timer)
    await Promise.all([...[...this.#queues.values()].map((queue) => queue.close(LAST_WORDS)), this.schedules.close()])
    this.#reach.close()
    events.close()
    await connections.closeAll()
  }

  get #up (): Started {
    if (this.#started === undefined) throw new errors.NotReady('a backend that is not started')
    return this.#started
  }

  #queue (name: string): BullmqQueue {
    const queue = this.#queues.get(name)
    if (queue === undefined) throw new Error(`no queue "${name}"`)
    return queue
  }

  #addQueue (name: string, settings: QueueSettings, sink: Sink, { retention, policyOf }: BackendSettings, connections: Connections): void {
    const { lockDuration, maxStalledCount } = this.#settings
    const parts = { clock: this.#clock, coder: this.#coder, reach: this.#reach, sink, policyOf: (task: string) => policyOf?.(task) ?? TASK_DEFAULTS }
    // BullMQ counts ages in whole seconds.
    const keep = { count: retention.completed.count, age: Math.ceil(retention.completed.age / 1_000) }
    const died = (queue: BullmqQueue): void => { void this.#deadLetters.get(queue)?.sweep() }
    const queue = new BullmqQueue(name, settings, { ...parts, connections, lockDuration, maxStalledCount, keep, died })
    this.#queues.set(name, queue)
    this.#deadLetters.set(queue, new DeadLetterRoom(queue, retention.failed, parts))
  }

  #listen (): void {
    if (this.#listening) return
    this.#listening = true
    const { events } = this.#up
    this.schedules.work()
    this.#reach.persist(() => events.listen((id, detail) => { this.#abort(id, detail) }, () => { this.schedules.open() })).catch(() => {}) // closed before
  }

  /** Whether it runs here. */
  #abort (id: string, detail: string): boolean {
    for (const queue of this.#queues.values()) {
      const attempt = queue.running(id)
      if (attempt === undefined) continue
      this.#up.sink.abort(attempt, 'cancel', detail)
      return true
    }
    return false
  }

  /** Until then it stays a dead letter: nothing is lost if this process ends before. */
  #reviveIn (ms: number, queue: BullmqQueue, id: string, payload: Copied | undefined): void {
    const timer = this.#clock.setTimer(() => {
      this.#spaced.delete(timer)
      this.#reach.persist(() => queue.revive(id, payload)).catch(() => {}) // removed meanwhile, or retried by somebody else
    }, ms)
    this.#spaced.add(timer)
  }
}
