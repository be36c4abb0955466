/**
 * Schedules, kept as BullMQ's job schedulers in a queue of their own. What they make are ticks, one for each time in the
 * whole cluster: the worker that takes one asks what to do, and adds the job. BullMQ reckons the times with our rules.
 */
import { randomUUID } from 'node:crypto'
import type { Job, JobSchedulerJson, RepeatOptions } from 'bullmq'
import type { BackendSettings, Duplicates, ScheduleStore, Sink } from '../../backend.ts'
import * as check from '../../check.ts'
import type { Clock } from '../../clock.ts'
import { peek } from '../../describe.ts'
import { stableId } from '../../id.ts'
import type { NewJob } from '../../job.ts'
import { ASK_AGAIN, timingOf, type KeptSchedule, type Overlap, type Schedule, type ScheduleRule } from '../../schedule.ts'
import type { Coder } from './codec.ts'
import type { Connections, StoreQueue, StoreWorker } from './connections.ts'
import { instantOf } from './facts.ts'
import { RECONNECT } from './options.ts'
import type { Reach } from './reach.ts'

const TICKS = 'fastify-background-tasks-schedules'
/** Ticks in hand at once. */
const CONCURRENCY = 10
/** How often a tick may be taken from workers that died. */
const STALLED = 100
const TICK_OPTIONS = { removeOnComplete: true, removeOnFail: true }
/** How a rule without a pattern is named where BullMQ wants one. */
const EVERY = /^every (\d+) ms$/

/** `job.data` of a tick. */
interface TickData {
  readonly schedule: Omit<Schedule, 'payload'> & { readonly payload: unknown }
  /** The ids of its jobs are made of it: they cannot be guessed, and a tick that runs twice makes one job. */
  readonly salt: string
  /** How far BullMQ, which goes on counting when the timing changes, had counted when this one began. */
  readonly base: number
  /** Of one that comes late: the time, and how many came before it. */
  readonly late?: { readonly at: number, readonly count: number }
}

/** The job that a schedule made last. A field beside the queue: to put a schedule writes the ticks, to fire writes this. */
interface Last {
  /** Of the schedule: one that was put later with other times has made no job yet. */
  readonly salt: string
  readonly id: string
  readonly at: number
}

type Tick = Job<TickData>
type Scheduler = JobSchedulerJson<TickData>

export interface BullmqSchedulesParts {
  readonly clock: Clock
  readonly coder: Coder
  readonly reach: Reach
  readonly lockDuration: number
  readonly enqueue: (job: NewJob) => Promise<Duplicates>
  readonly isAlive: (id: string) => Promise<boolean>
  /** Tells the other processes that there is work for them. */
  readonly tell: () => Promise<void>
}

interface Started {
  readonly connections: Connections
  readonly sink: Sink
  readonly settings: BackendSettings
  readonly store: StoreQueue
}

export class BullmqSchedules implements ScheduleStore {
  // What waits for the end of a job would have to be a tick that waits, and the next tick comes all the same.
  readonly overlaps: readonly Overlap[] = ['skip', 'allow']
  readonly #parts: BullmqSchedulesParts
  #started: Started | undefined
  #working = false
  #opened = false
  #worker: StoreWorker | undefined

  constructor (parts: BullmqSchedulesParts) {
    this.#parts = parts
  }

  start (connections: Connections, sink: Sink, settings: BackendSettings): void {
    this.#started = { connections, sink, settings, store: connections.queue(TICKS, this.#strategy(settings)) }
  }

  /** This process works: it takes ticks as soon as there are schedules. */
  work (): void {
    if (this.#working) return
    this.#working = true
    this.#parts.reach.persist(async () => { if (await this.#up.store.getJobSchedulersCount() > 0) this.open() }).catch(() => {}) // closed before
  }

  /** There are schedules. */
  open (): void {
    if (!this.#working || this.#opened || this.#up.settings.fire === undefined) return
    this.#opened = true
    this.#parts.reach.persist(() => this.#open()).catch(() => {}) // closed before
  }

  /** Ticks in hand are stored, or given back. */
  async close (): Promise<void> {
    this.#opened = true
    if (this.#worker !== undefined) await this.#up.connections.close(this.#worker)
  }

  async put (schedule: Schedule, next: number | undefined): Promise<void> {
    await this.#parts.reach.bounded(() => this.#put(schedule, next))
    if (next === undefined) return
    this.open()
    await this.#parts.reach.bounded(() => this.#parts.tell())
  }

  remove (id: string): Promise<boolean> {
    return this.#parts.reach.bounded(() => this.#remove(id))
  }

  list (): Promise<KeptSchedule[]> {
    return this.#parts.reach.bounded(async () => {
      const all = await this.#up.store.getJobSchedulers(0, -1, true) as Scheduler[]
      const lasts = await this.#lasts(all.map(({ key }) => key))
      const kept = all.flatMap((scheduler, i) => {
        const data = ours(scheduler.template?.data)
        return data === undefined ? [] : [this.#kept(data, scheduler.next ?? this.#parts.clock.now(), countOf(scheduler, data), lasts[i])]
      })
      return kept.sort((a, b) => a.id < b.id ? -1 : 1)
    })
  }

  get #up (): Started { return this.#started as Started }

  #strategy ({ nextTime }: BackendSettings) {
    return { settings: { repeatStrategy: async (after: number, options: RepeatOptions) => nextTime?.(ruleOf(options), after) } }
  }

  async #open (): Promise<void> {
    const { connections, settings } = this.#up
    const { lockDuration, reach } = this.#parts
    const worker = connections.worker(TICKS, (job, token) => this.#take(job as Tick, token as string), {
      ...this.#strategy(settings),
      concurrency: CONCURRENCY,
      lockDuration,
      maxStalledCount: STALLED,
      stalledInterval: lockDuration,
      runRetryDelay: RECONNECT
    })
    try {
      await worker.waitUntilReady()
    } catch (error) {
      await connections.close(worker) // it would stay broken
      throw error
    }
    this.#worker = worker
    worker.run().catch((error: unknown) => { reach.lose(error) })
  }

  async #put (schedule: Schedule, next: number | undefined): Promise<void> {
    const { store } = this.#up
    const { id, name, rule } = schedule
    const before = await store.getJobScheduler(id) as Scheduler | undefined
    const data = ours(before?.template?.data)
    const wanted = { ...schedule, payload: this.#parts.coder.encode(schedule.payload) }
    if (before === undefined || data === undefined || timingOf(data.schedule.rule) !== timingOf(rule)) {
      const template: TickData = { schedule: wanted, salt: randomUUID(), base: before?.iterationCount ?? 1 }
      if (next === undefined) await this.#remove(id)
      else await store.upsertJobScheduler(id, repeatOf(rule), { name, data: template, opts: TICK_OPTIONS })
      return
    }
    if (JSON.stringify(data.schedule) === JSON.stringify(wanted)) return
    const count = countOf(before, data)
    const at = before.next ?? Infinity
    // BullMQ goes on to the next time: one that had come already is not forgotten. Should this process die between the
    // two calls, the time comes twice, and makes the same job.
    const late = at <= this.#parts.clock.now() ? 1 : 0
    const template = { ...data, schedule: wanted, base: data.base - late }
    const passed = count + late
    if (late > 0) await store.add(name, { ...template, late: { at, count } }, { ...TICK_OPTIONS, jobId: `late:${id}:${at}` })
    await store.upsertJobScheduler(id, { ...repeatOf(rule), ...(passed > 0 && { count: passed }) }, { name, data: template, opts: TICK_OPTIONS })
  }

  async #remove (id: string): Promise<boolean> {
    const { store } = this.#up
    const found = await store.removeJobScheduler(id)
    await store.getBackend().removeQueueMetaFields([fieldOf(id)])
    return found
  }

  #kept ({ schedule, salt }: TickData, next: number, count: number, last: Last | undefined): KeptSchedule {
    const own = last?.salt === salt ? last : undefined
    return { ...schedule, payload: this.#parts.coder.read(schedule.payload), next, count, lastJobId: own?.id ?? null, lastAt: own?.at ?? null }
  }

  async #lasts (ids: readonly string[]): Promise<Array<Last | undefined>> {
    if (ids.length === 0) return []
    const fields = await this.#up.store.getBackend().getQueueMetaFields(ids.map(fieldOf))
    return fields.map(readLast)
  }

  async #take (tick: Tick, token: string): Promise<void> {
    const { clock, reach } = this.#parts
    if (ours(tick.data) === undefined) throw new Error('no schedule of fastify-background-tasks: somebody else added it')
    // An error is that of a store that is away, which was told: the tick must not end as BullMQ lets failed jobs end.
    if (await this.#fire(tick).catch(() => false)) return
    await reach.persist(() => tick.moveToDelayed(clock.now() + ASK_AGAIN, token)).catch(() => {}) // closed, or another process has it
    throw this.#up.connections.moved
  }

  /** False: not now. What it does may be done twice. */
  async #fire (tick: Tick): Promise<boolean> {
    const { sink, settings, store } = this.#up
    const { enqueue, isAlive, clock, reach } = this.#parts
    const { data, opts } = tick
    const at = data.late?.at ?? opts.prevMillis ?? clock.now()
    const count = data.late?.count ?? Math.max(0, ((opts as { repeat?: RepeatOptions }).repeat?.count ?? 1) - 1)
    const [last] = await reach.bounded(() => this.#lasts([data.schedule.id]))
    const kept = this.#kept(data, at, count, last)
    const { id: schedule, lastJobId } = kept
    const alive = lastJobId !== null && await reach.bounded(() => isAlive(lastJobId))
    const firing = settings.fire?.(kept, alive)
    if (firing === undefined) return false
    const { job, next, skipped } = firing
    const id = stableId(data.salt, at)
    // Ticks that come late may run side by side: that no two jobs do, BullMQ's own deduplication sees to.
    const added = job && asOf(kept, job, id)
    const isDuplicate = added !== undefined && (await enqueue(added)).has(id)
    if (next === undefined) await this.remove(schedule)
    else if (job !== undefined && !isDuplicate) {
      const made: Last = { salt: data.salt, id, at: clock.now() }
      await reach.bounded(() => store.getBackend().setQueueMeta({ [fieldOf(schedule)]: JSON.stringify(made) }))
    }
    if (added !== undefined && !isDuplicate) sink.report({ kind: 'fired', job: added })
    const why = isDuplicate ? 'overlap' : skipped
    if (why !== undefined) sink.report({ kind: 'skipped', schedule: kept, why })
    return true
  }
}

/** Undefined for what somebody else put into the queue. */
function ours (data: unknown): TickData | undefined {
  const schedule = peek(data, 'schedule')
  const texts = [peek(schedule, 'id'), peek(schedule, 'name'), peek(schedule, 'queue'), peek(data, 'salt')]
  return texts.every((text) => typeof text === 'string') && check.object(peek(schedule, 'rule')) === undefined ? data as TickData : undefined
}

/** Undefined for what nobody can read. */
function readLast (text: string | null): Last | undefined {
  try {
    const last = JSON.parse(text ?? 'null') as Last | null
    return typeof last?.id === 'string' && instantOf(last.at) !== undefined ? last : undefined
  } catch {
    return undefined
  }
}

/** Of the last job of a schedule, among what BullMQ keeps beside a queue. */
function fieldOf (id: string): string {
  return `background-last:${id}`
}

function repeatOf ({ pattern, every, tz, startDate, endDate, limit }: ScheduleRule): Omit<RepeatOptions, 'key'> {
  return {
    pattern: pattern ?? `every ${every} ms`,
    tz,
    ...(startDate !== null && { startDate }),
    ...(endDate !== null && { endDate }),
    ...(limit !== null && { limit })
  }
}

function ruleOf ({ pattern = '', tz = 'UTC', startDate, endDate }: RepeatOptions): ScheduleRule {
  const every = EVERY.exec(pattern)?.[1]
  const instant = (given: Date | string | number | undefined): number | null => given === undefined ? null : new Date(given).getTime()
  return {
    pattern: every === undefined ? pattern : null,
    every: every === undefined ? null : Number(every),
    tz,
    startDate: instant(startDate),
    endDate: instant(endDate),
    overlap: 'skip',
    missed: 'skip',
    limit: null
  }
}

/** Times that have come. */
function countOf ({ iterationCount = 1 }: Scheduler, { base }: TickData): number {
  return Math.max(0, iterationCount - base)
}

function asOf ({ id: schedule, rule }: KeptSchedule, { name, queue, payload, bytes, createdAt, requestId, policy: given, order }: NewJob, id: string): NewJob {
  const alone = rule.overlap === 'skip' && given.deduplication === undefined
  const policy = alone ? { ...given, deduplication: { id: `schedule ${schedule}`, ttl: 0 } } : given
  return { id, name, queue, payload, bytes, createdAt, requestId, policy, local: undefined, order }
}
