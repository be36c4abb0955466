/**
 * Schedules, kept as BullMQ's job schedulers in a queue of their own. What they make are ticks, one for each time in the
 * whole cluster: the worker that takes one asks what to do, and adds the job. BullMQ reckons the times with our rules.
 */
import { randomUUID } from 'node:crypto'
import type { Job, JobSchedulerJson, RepeatOptions } from 'bullmq'
import type { BackendSettings, Duplicates, ScheduleStore, Sink } from '../../backend.ts'
import type { Clock } from '../../clock.ts'
import { stableId } from '../../id.ts'
import type { NewJob } from '../../job.ts'
import { ASK_AGAIN, timingOf, type KeptSchedule, type Overlap, type Schedule, type ScheduleRule } from '../../schedule.ts'
import type { Coder } from './codec.ts'
import type { Connections, StoreQueue, StoreWorker } from './connections.ts'
import { RECONNECT } from './options.ts'
import { isRefusal, type Reach } from './reach.ts'

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
  readonly last: { readonly id: string, readonly at: number } | null
  /** The time, where it is not that of the job scheduler. */
  readonly at?: number
}

type Tick = Job<TickData>

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
    if (!this.#working || this.#worker !== undefined || this.#up.settings.fire === undefined) return
    const { connections, settings } = this.#up
    const { lockDuration, reach } = this.#parts
    const worker = this.#worker = connections.worker(TICKS, (job, token) => this.#take(job as Tick, token as string), {
      ...this.#strategy(settings),
      concurrency: CONCURRENCY,
      lockDuration,
      maxStalledCount: STALLED,
      stalledInterval: lockDuration,
      runRetryDelay: RECONNECT
    })
    worker.waitUntilReady().then(() => worker.run()).catch((error: unknown) => { reach.lose(error) })
  }

  async put (schedule: Schedule, next: number | undefined): Promise<void> {
    await this.#parts.reach.bounded(() => this.#put(schedule, next))
    if (next === undefined) return
    this.open()
    await this.#parts.reach.bounded(() => this.#parts.tell())
  }

  remove (id: string): Promise<boolean> {
    return this.#parts.reach.bounded(() => this.#up.store.removeJobScheduler(id))
  }

  list (): Promise<KeptSchedule[]> {
    return this.#parts.reach.bounded(async () => {
      const all = await this.#up.store.getJobSchedulers(0, -1, true) as Array<JobSchedulerJson<TickData>>
      const kept = await Promise.all(all.map(async (scheduler) => {
        const tick = await this.#tickOf(scheduler)
        const data = tick?.data ?? scheduler.template?.data
        return data === undefined ? [] : [this.#kept(data, scheduler.next ?? this.#parts.clock.now(), tick)]
      }))
      return kept.flat().sort((a, b) => a.id < b.id ? -1 : 1)
    })
  }

  get #up (): Started { return this.#started as Started }

  #strategy ({ nextTime }: BackendSettings) {
    return { settings: { repeatStrategy: async (after: number, options: RepeatOptions) => nextTime?.(ruleOf(options), after) } }
  }

  async #put (schedule: Schedule, next: number | undefined): Promise<void> {
    const { store } = this.#up
    const { id, name, rule } = schedule
    const before = await store.getJobScheduler(id) as JobSchedulerJson<TickData> | undefined
    const tick = before && await this.#tickOf(before)
    const data = tick?.data ?? before?.template?.data
    const wanted = { ...schedule, payload: this.#parts.coder.encode(schedule.payload) }
    if (data === undefined || timingOf(data.schedule.rule) !== timingOf(rule)) {
      if (next === undefined) await store.removeJobScheduler(id)
      else await store.upsertJobScheduler(id, repeatOf(rule), { name, data: { schedule: wanted, salt: randomUUID(), last: null }, opts: TICK_OPTIONS })
      return
    }
    if (JSON.stringify(data.schedule) === JSON.stringify(wanted)) return
    const count = countOf(tick)
    await store.upsertJobScheduler(id, { ...repeatOf(rule), ...(count > 0 && { count }) }, { name, data: { ...data, schedule: wanted }, opts: TICK_OPTIONS })
    // BullMQ has gone on to the next time: one that had come already is not forgotten.
    const at = before?.next ?? Infinity
    if (at <= this.#parts.clock.now()) await store.add(name, { ...data, schedule: wanted, at }, { ...TICK_OPTIONS, jobId: `late:${id}:${at}` })
  }

  #tickOf ({ key, next }: JobSchedulerJson<TickData>): Promise<Tick | undefined> {
    return this.#up.store.getJob(`repeat:${key}:${next}`) as Promise<Tick | undefined>
  }

  #kept ({ schedule, last }: TickData, next: number, tick: Tick | undefined): KeptSchedule {
    const payload = this.#parts.coder.read(schedule.payload)
    return { ...schedule, payload, next, count: countOf(tick), lastJobId: last?.id ?? null, lastAt: last?.at ?? null }
  }

  async #take (tick: Tick, token: string): Promise<void> {
    try {
      if (await this.#fire(tick)) return
    } catch (error) {
      if (!isRefusal(error)) this.#parts.reach.lose(error)
    }
    await tick.moveToDelayed(this.#parts.clock.now() + ASK_AGAIN, token)
    throw this.#up.connections.moved
  }

  /** False: not now. What it does may be done twice. */
  async #fire (tick: Tick): Promise<boolean> {
    const { sink, settings, store } = this.#up
    const { enqueue, isAlive, clock } = this.#parts
    const { data } = tick
    if (data.last !== null) await this.#handOn(data.schedule.id, data.last)
    const at = data.at ?? tick.opts.prevMillis ?? clock.now()
    const kept = this.#kept(data, at, tick)
    const firing = settings.fire?.(kept, data.last !== null && await isAlive(data.last.id))
    if (firing === undefined) return false
    const { job, next, skipped } = firing
    const id = stableId(data.salt, at)
    // Ticks that come late may run side by side: that no two jobs do, BullMQ's own deduplication sees to.
    const isDuplicate = job !== undefined && (await enqueue(asOf(kept, job, id))).has(id)
    if (next === undefined) await store.removeJobScheduler(kept.id)
    else if (job !== undefined && !isDuplicate) await this.#handOn(kept.id, { id, at: clock.now() })
    const why = isDuplicate ? 'overlap' : skipped
    if (why !== undefined) sink.report({ kind: 'skipped', schedule: kept, why })
    return true
  }

  /** The next tick, which BullMQ has made as this one started, is told which job was the last. */
  async #handOn (id: string, last: NonNullable<TickData['last']>): Promise<void> {
    const scheduler = await this.#up.store.getJobScheduler(id) as JobSchedulerJson<TickData> | undefined
    const next = scheduler && await this.#tickOf(scheduler)
    if (next !== undefined && (next.data.last?.at ?? -Infinity) < last.at) await next.updateData({ ...next.data, last })
  }
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

/** Times that came before that of the tick. */
function countOf (tick: Tick | undefined): number {
  const { repeat } = (tick?.opts ?? {}) as { repeat?: RepeatOptions }
  return Math.max(0, (repeat?.count ?? 1) - 1)
}

function asOf ({ id: schedule, rule }: KeptSchedule, { name, queue, payload, bytes, createdAt, requestId, policy: given, order }: NewJob, id: string): NewJob {
  const alone = rule.overlap === 'skip' && given.deduplication === undefined
  const policy = alone ? { ...given, deduplication: { id: `schedule ${schedule}`, ttl: 0 } } : given
  return { id, name, queue, payload, bytes, createdAt, requestId, policy, local: undefined, order }
}
