/** Schedules: jobs that are made when a time comes. Backends keep them and obey; when, and whether, is judged in `jobs/`. */
import type { NewJob } from './job.ts'
import type { Json } from './json.ts'

/**
 * When the job of the time before has not ended:
 * - `skip`: this time passes without a job
 * - `queue`: one time waits until it has ended; those that come meanwhile are skipped
 * - `allow`: they run side by side
 */
export type Overlap = 'skip' | 'queue' | 'allow'
/** What becomes of times at which nobody was there: `skip`: nothing; `once`: one job for all of them. */
export type Missed = 'skip' | 'once'

/** When, with every value in its place. Instants are epoch ms. */
export interface ScheduleRule {
  /** Cron; null where `every` says when. */
  readonly pattern: string | null
  /** Ms. */
  readonly every: number | null
  /** IANA time zone of the pattern. */
  readonly tz: string
  readonly overlap: Overlap
  readonly missed: Missed
  readonly startDate: number | null
  readonly endDate: number | null
  /** Times in all; one that was skipped counts. */
  readonly limit: number | null
}

/** A schedule as a backend is given it. Its payload's size is in bytes. */
export interface Schedule {
  readonly id: string
  /** Of the task. */
  readonly name: string
  readonly queue: string
  readonly payload: Json
  /** Of the payload's JSON. */
  readonly bytes: number
  readonly rule: ScheduleRule
}

/** As its backend keeps it. */
export interface KeptSchedule extends Schedule {
  /** The next time, or the one that has come and waits. Epoch ms. */
  readonly next: number
  /** Times that have come. */
  readonly count: number
  /** The job made last, and when. */
  readonly lastJobId: string | null
  /** Epoch ms. */
  readonly lastAt: number | null
}

/** What to do with a schedule whose time has come. */
export interface Firing {
  /** To be added, in one step with the rest; undefined: this time passes without one. */
  readonly job: NewJob | undefined
  /** The next time; undefined: there is none, and the schedule is over. */
  readonly next: number | undefined
  /** Why one or more times pass without a job. */
  readonly skipped: 'overlap' | 'missed' | undefined
}

/** `alive`: the job made last has not ended. Undefined: not now, and not here; to be asked again after `ASK_AGAIN`. Never throws. */
export type Fire = (schedule: KeptSchedule, alive: boolean) => Firing | undefined

/** Ms. */
export const ASK_AGAIN = 1_000
/** Ms after which a wait for a time is begun anew: the wall clock may have been set. */
export const LONGEST_WAIT = 30_000

/** A schedule keeps its next time, and its count, while nothing that says when has changed. */
export function timingOf ({ pattern, every, tz, startDate, endDate, limit }: ScheduleRule): string {
  return JSON.stringify([pattern, every, tz, startDate, endDate, limit])
}
