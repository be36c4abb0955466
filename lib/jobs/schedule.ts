/** Schedules: what is asked for, checked; and what to do when the time of one has come, which backends ask. */
import type { Backends, ScheduleStore } from '../backend.ts'
import * as check from '../check.ts'
import type { Clock } from '../clock.ts'
import { describe } from '../describe.ts'
import { errors, LONGEST_MS } from '../errors.ts'
import { iso } from '../job.ts'
import type { Json } from '../json.ts'
import type { Observer } from '../observe.ts'
import type { Settings } from '../options.ts'
import type { Firing, KeptSchedule, Missed, Overlap, Schedule, ScheduleRule } from '../schedule.ts'
import type { Intake } from './add.ts'
import type { Cron } from './cron.ts'
import { takePayload, type Registry } from './registry.ts'

/** When a schedule makes its jobs. */
export interface ScheduleOptions {
  /**
   * Cron with five fields, or six with seconds first; `L`, `W`, `#` and `@daily` too. Needs the package `croner`. Either
   * this or `every`. Without it `every` is needed.
   */
  pattern?: string | undefined
  /** Ms, at least 100: at `startDate` plus each multiple of it, or at the multiples since 1970, so that a restart postpones nothing. Without it `pattern` is needed. */
  every?: number | undefined
  /** IANA time zone of the pattern. @default 'UTC', so that all processes mean the same */
  tz?: string | undefined
  /** When the job of the time before has not ended. @default 'skip' */
  overlap?: Overlap | undefined
  /** Of times that passed more than a minute ago, because nobody was there. @default 'skip', with `overlap: 'queue'` always 'once' */
  missed?: Missed | undefined
  /** No time before it: Date, ISO 8601 or epoch ms. Without it from now on. */
  startDate?: Date | string | number | undefined
  /** No time after it. Date, ISO 8601 or ms since the epoch; without it for ever. */
  endDate?: Date | string | number | undefined
  /** Times in all; one that was skipped counts. Then the schedule is over, and forgotten. Without it there is no end. */
  limit?: number | undefined
}

/** What is known of a schedule. */
export interface ScheduleRecord extends Omit<ScheduleOptions, 'startDate' | 'endDate'> {
  id: string
  /** Of the task. */
  name: string
  queue: string
  payload: Json
  overlap: Overlap
  missed: Missed
  startDate?: string
  endDate?: string
  /** ISO 8601; null: the schedule is over, and not kept. */
  next: string | null
  /** Times that have come. */
  count: number
  lastJobId: string | null
  lastAt: string | null
}

const CHECKS: check.Checks = {
  pattern: (value) => typeof value === 'string' && value.length <= 256 ? undefined : 'a cron pattern',
  every: check.integer(100, LONGEST_MS),
  tz: (value) => typeof value === 'string' && isTimeZone(value) ? undefined : 'an IANA time zone',
  overlap: check.oneOf('skip', 'queue', 'allow'),
  missed: check.oneOf('skip', 'once'),
  startDate: check.instant,
  endDate: check.instant,
  limit: check.integer(1, Number.MAX_SAFE_INTEGER)
}

/** Ms. A time that comes later than this was missed. */
const LATE = 60_000

export interface ScheduleParts {
  readonly settings: Settings
  readonly registry: Registry
  readonly intake: Intake
  readonly backends: Backends
  readonly observer: Observer
  readonly clock: Clock
  readonly cron: Cron
}

export class Schedules {
  readonly #parts: ScheduleParts

  constructor (parts: ScheduleParts) {
    this.#parts = parts
  }

  async put (id: string, options: ScheduleOptions, target: unknown, payload: unknown): Promise<ScheduleRecord> {
    const { settings, registry, intake, backends, clock, cron } = this.#parts
    intake.mustBeOpen('schedule()')
    check.must('schedule(id)', check.name, id)
    const where = `schedule("${id}")`
    const rule = ruleOf(where, check.options<ScheduleOptions>(where, CHECKS, options))
    const { name, policy: { queue } } = registry.get(target)
    const { value, bytes } = takePayload(registry.get(target), payload, settings.maxPayloadBytes)
    const schedule: Schedule = { id, name, queue, payload: value, bytes, rule }
    const backend = backends.of(queue, false)
    const store = backend.schedules
    if (store === undefined) throw new errors.NotSupported('schedule()', backend.name)
    if (!store.overlaps.includes(rule.overlap)) throw new errors.NotSupported(`${where}.overlap "${rule.overlap}"`, backend.name)
    if (rule.pattern !== null) await cron.load()
    const next = cron.next(rule, clock.now(), `${where}.pattern`)
    await this.#ask('keep a schedule', async () => {
      await store.put(schedule, next)
      for (const other of this.#stores()) if (other !== store) await other.remove(id) // its task stood elsewhere
    })
    const kept = (await this.#kept()).find((other) => other.id === id)
    return recordOf(kept ?? { ...schedule, next: undefined, count: 0, lastJobId: null, lastAt: null })
  }

  /** Answers whether there was one. Jobs that it has made stay. */
  async remove (id: string): Promise<boolean> {
    this.#parts.intake.mustBeOpen('unschedule()')
    let found = false
    await this.#ask('forget a schedule', async () => {
      for (const store of this.#stores()) found = await store.remove(id) || found
    })
    return found
  }

  /** In the order of their ids. */
  async list (): Promise<ScheduleRecord[]> {
    this.#parts.intake.mustBeOpen('schedules()')
    return (await this.#kept()).map(recordOf)
  }

  /** For backends that reckon the times themselves. */
  async nextTime (rule: ScheduleRule, after: number): Promise<number | undefined> {
    if (rule.pattern !== null) await this.#parts.cron.load()
    return this.#parts.cron.next(rule, after)
  }

  /** What to do when the time of a schedule has come; undefined: nothing now, or not here. Never throws. */
  fire (kept: KeptSchedule, alive: boolean): Firing | undefined {
    try {
      return this.#judge(kept, alive)
    } catch (error) {
      this.#parts.observer.scheduleFailed(kept, describe(error))
      return undefined
    }
  }

  #judge (kept: KeptSchedule, alive: boolean): Firing | undefined {
    const { settings, backends, intake, clock, cron } = this.#parts
    const { rule, count } = kept
    if (!intake.isOpen || (settings.role === 'producer' && backends.of(kept.queue, false).durable)) return undefined
    if (!cron.knows(rule)) {
      cron.load().catch((error: unknown) => { this.#parts.observer.scheduleFailed(kept, describe(error)) })
      return undefined
    }
    if (alive && rule.overlap === 'queue') return undefined
    const now = clock.now()
    const missed = now - kept.next > LATE && rule.missed === 'skip'
    const time = missed ? cron.next(rule, now - LATE) : kept.next
    if (time === undefined || time > now) return { job: undefined, next: time, skipped: 'missed' }
    const next = rule.limit !== null && count + 1 >= rule.limit ? undefined : cron.next(rule, Math.max(now, time))
    if (alive && rule.overlap === 'skip') return { job: undefined, next, skipped: 'overlap' }
    const job = intake.scheduled(kept)
    return job && { job, next, skipped: missed ? 'missed' : undefined }
  }

  #stores (): Set<ScheduleStore> {
    const { registry, backends } = this.#parts
    const stores = [...registry.queues.keys()].map((queue) => backends.of(queue, false).schedules)
    return new Set(stores.filter((store) => store !== undefined))
  }

  async #kept (): Promise<KeptSchedule[]> {
    return this.#ask('list schedules', async () => {
      const lists = await Promise.all([...this.#stores()].map(async (store) => store.list()))
      return lists.flat().sort((a, b) => a.id < b.id ? -1 : 1)
    })
  }

  async #ask<T> (what: string, ask: () => Promise<T>): Promise<T> {
    try {
      return await ask()
    } catch (error) {
      this.#parts.observer.storeFailed(what, describe(error))
      // Not the cause: error handlers of applications may show it to clients.
      throw Object.assign(new errors.StoreUnavailable(), { headers: { 'retry-after': '1' } })
    }
  }
}

/** @throws FST_BG_BAD_OPTION */
function ruleOf (where: string, given: ScheduleOptions): ScheduleRule {
  const { pattern = null, every = null, overlap = 'skip' } = given
  if ((pattern === null) === (every === null)) throw new errors.BadOption(where, 'either pattern or every', pattern === null ? 'none' : 'both')
  if (pattern === null && given.tz !== undefined) throw new errors.BadOption(`${where}.tz`, 'a pattern, which alone has a time zone', 'every')
  if (overlap === 'queue' && given.missed === 'skip') throw new errors.BadOption(`${where}.missed`, '"once" with overlap "queue", whose times may wait', '"skip"')
  return {
    pattern,
    every,
    tz: given.tz ?? 'UTC',
    overlap,
    missed: given.missed ?? (overlap === 'queue' ? 'once' : 'skip'),
    startDate: given.startDate === undefined ? null : check.toEpoch(given.startDate),
    endDate: given.endDate === undefined ? null : check.toEpoch(given.endDate),
    limit: given.limit ?? null
  }
}

function recordOf ({ id, name, queue, payload, rule, next, count, lastJobId, lastAt }: Omit<KeptSchedule, 'next'> & { next: number | undefined }): ScheduleRecord {
  const { pattern, every, tz, overlap, missed, startDate, endDate, limit } = rule
  return {
    id,
    name,
    queue,
    payload,
    ...(pattern !== null ? { pattern, tz } : { every: every as number }),
    overlap,
    missed,
    ...(startDate !== null && { startDate: iso(startDate) }),
    ...(endDate !== null && { endDate: iso(endDate) }),
    ...(limit !== null && { limit }),
    next: next === undefined ? null : iso(next),
    count,
    lastJobId,
    lastAt: lastAt === null ? null : iso(lastAt)
  }
}

function isTimeZone (tz: string): boolean {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: tz }).resolvedOptions().timeZone !== ''
  } catch {
    return false
  }
}
