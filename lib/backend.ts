/**
 * The seam: what a queue stands on. Credits go down (`want`), attempts come up (`deliver`), verdicts go down
 * (`settle`). A backend keeps jobs and obeys; it never judges. Its promises, each with a test in the contract suite:
 *
 * - attempt numbers start at 1
 * - at most `want` attempts of a queue are unsettled, and what is delivered is shown as active
 * - an outcome is stored only if the attempt still owns its job; otherwise it is ignored
 * - after `want(queue, 0)` nothing new of that queue is delivered
 * - nothing is delivered inside the caller's own `enqueue`: it comes in a later turn of the loop
 * - after `close` no timer or socket is left
 * - reads never show a state that was not reached; ids are never reused
 * - groups that have jobs waiting take turns, and so do the jobs without a group; in each the higher priority goes first
 * - of jobs with the same deduplication id, task and queue only one is kept while that one lives, or for its `ttl`
 * - what `enqueue` returned or resolved for is not lost beyond the backend's own promise (`durable`)
 * - a released job does not spin
 * - the carrier of a job comes back with each attempt, as it was
 * - while a store is away, calls to it reject: none hangs; what was settled or released is stored when it comes back
 * - `close` waits for what was handed over before; durable jobs still out are given back
 *
 * Answers may be values or promises: a backend in memory answers at once.
 */
import type { Capabilities } from './capabilities.ts'
import type { Clock } from './clock.ts'
import type { ErrorFacts } from './describe.ts'
import type { AbortKind } from './errors.ts'
import type { Attempt, CancelReason, Duplicates, FlowNode, JobRecord, JobState, NewJob, Outcome, Policy } from './job.ts'
import type { Copied, Json } from './json.ts'
import type { Fire, KeptSchedule, Overlap, Schedule, ScheduleRule } from './schedule.ts'

export type { Duplicate, Duplicates, FlowNode } from './job.ts'

/** An answer at once, or a promise of one. */
export type Awaitable<T> = T | Promise<T>

/** What a backend tells without being asked. */
export interface Sink {
  /** Start these. Must not throw. */
  deliver (attempts: readonly Attempt[]): void
  /** Stop this running attempt: its job was cancelled. `detail` says why, for the signal's reason. */
  abort (attempt: Attempt, kind: AbortKind, detail: string): void
  /** These ended or vanished without an attempt of their own. */
  report (incident: Incident): void
}

/** What happens to jobs, or to the store, without an attempt that could tell it. */
export type Incident =
  /** It waited for a child that failed or was cancelled. */
  | { readonly kind: 'child-failed', readonly job: NewJob, readonly child: string }
  /** With its parent, which a user cancelled. */
  | { readonly kind: 'cancelled', readonly job: NewJob, readonly reason: CancelReason }
  /** The `ttl` was over before the first start. */
  | { readonly kind: 'expired', readonly job: NewJob }
  /** A dead letter left because of `retention`. */
  | { readonly kind: 'evicted', readonly job: NewJob }
  /** Its processes died too often while they ran it. */
  | { readonly kind: 'stalled', readonly job: NewJob }
  /** This attempt's process died; the job starts again, or is `stalled`. */
  | { readonly kind: 'recovered', readonly job: NewJob, readonly attempt: number }
  /** A schedule has made it. */
  | { readonly kind: 'fired', readonly job: NewJob }
  /** A time of a schedule passed without a job. */
  | { readonly kind: 'skipped', readonly schedule: Schedule, readonly why: 'overlap' | 'missed' }
  /** The store is away: told once, and once when it is back. */
  | { readonly kind: 'lost', readonly error: ErrorFacts }
  | { readonly kind: 'back', readonly awayMs: number }

/** What a backend is started with. */
export interface BackendSettings {
  readonly queues: ReadonlyMap<string, QueueSettings>
  readonly retention: Retention
  /** Of a task defined here. What a job has of its own is laid over it; functions are always the task's. */
  readonly policyOf?: (task: string) => Policy | undefined
  /** Ms after which whoever staged a job releases it in any case, if that process lives. */
  readonly maxHold: number
  /** What to do with a schedule whose time has come. Without it no schedule fires. */
  readonly fire?: Fire
  /** The first time of a schedule after an instant; both epoch ms. May have to load something first. */
  readonly nextTime?: (rule: ScheduleRule, after: number) => Awaitable<number | undefined>
  /** Adds a job as `app.background.add` would, with all its checks; for backends that make jobs by themselves. */
  readonly add?: (task: string, payload: unknown) => Promise<{ readonly id: string }>
}

/** What a running attempt has to tell. `started`: its body begins now; told only where the queue has a limiter. */
export type Note = { readonly progress: Json } | { readonly overdue: true } | { readonly started: true }

/** Jobs that ended and are kept, by number of jobs (`count`) and by ms since their end (`age`). */
export interface Retention {
  readonly completed: { readonly count: number, readonly age: number }
  readonly failed: { readonly count: number, readonly age: number }
}

/** Exact: in any window of `duration`. */
export interface Rate {
  /** Starts, 1 to 100 000. */
  readonly max: number
  /** Ms. */
  readonly duration: number
}

/** What a backend has to know of a queue. */
export interface QueueSettings {
  readonly limiter: Rate | undefined
  readonly groups?: GroupSettings | undefined
}

/** Of each group of a queue. */
export interface GroupSettings {
  /** Attempts unsettled at once, in all processes; Infinity: as many as the queue has slots. */
  readonly concurrency: number
  readonly limiter: Rate | undefined
}

/** Jobs of a queue, by state. */
export interface QueueCounts {
  pending: number
  waiting: number
  delayed: number
  'waiting-children': number
  /** Of the delayed: those that wait for a retry. */
  retrying: number
  /** Of the delayed: those that wait for the queue's rate limit alone. */
  limited: number
  active: number
  completed: number
  failed: number
  cancelled: number
  /** Ms since the oldest waiting job may start; 0 without one. */
  oldestWaitingMs: number
}

/** How many jobs of a task are in a state. Those that the limit of their group holds back are `waiting`. */
export interface Tally {
  readonly queue: string
  /** Empty where the backend cannot tell. */
  readonly task: string
  readonly state: JobState
  readonly jobs: number
}

/** Jobs that never started, as far as this process knows. */
export interface Load {
  jobs: number
  /** Of their payloads' JSON. */
  bytes: number
}

/** Which jobs to list. */
export interface JobQuery {
  states?: readonly JobState[]
  name?: string
  queue?: string
  /** An id: only jobs made after it; before it, where the newest come first. */
  after?: string
  /** @default false */
  newestFirst?: boolean
  /** Jobs at most. */
  limit: number
}

/** A job has entered a state. */
export interface Change {
  readonly id: string
  readonly state: JobState
}

/** `cancelled`: it did not run · `cancelling`: its signal has aborted · `final`: it had ended · `undefined`: there is no such job. */
export type CancelAnswer = 'cancelled' | 'cancelling' | 'final' | undefined

/** The part of a backend that keeps schedules, and asks `fire` when their time has come: one process of all that share them. */
export interface ScheduleStore {
  readonly overlaps: readonly Overlap[]
  /**
   * In place of one with the same id. `next`: its first time; ignored, with the count, where one with the same timing is
   * kept. Undefined: it has no time, and is not kept.
   */
  put (schedule: Schedule, next: number | undefined): Awaitable<void>
  /** Answers whether it was there. What it has made stays. */
  remove (id: string): Awaitable<boolean>
  /** In the order of their ids. */
  list (): Awaitable<KeptSchedule[]>
}

/**
 * The part of a backend that keeps flows. A parent is `waiting-children` until all of them have ended; if one fails or is
 * cancelled that is not `ignored`, the parent fails at once. The cancel of a parent cancels those that do not run.
 */
export interface FlowStore {
  /** All of them or none. */
  add (root: FlowNode): Awaitable<void>
}

/** What a queue stands on. Its methods, and what they promise, are told at the head of lib/backend.ts. */
export interface Backend {
  readonly name: string
  /** Whether accepted jobs survive the process. */
  readonly durable: boolean
  readonly capabilities: Capabilities
  /** The time it lives by, when that is not the system's; the plugin then lives by it too. */
  readonly clock?: Clock
  /** Absent: it keeps no schedules. */
  readonly schedules?: ScheduleStore
  /** Absent: it keeps no flows. */
  readonly flows?: FlowStore | undefined
  /** True from a call that the store refused or did not answer until one succeeds. */
  readonly unreachable?: boolean

  /** Called once, when the application is ready; jobs may be delivered from then on. */
  start (sink: Sink, settings: BackendSettings): Awaitable<void>
  /** At most `n` attempts of the queue may be unsettled; may change at any time. */
  want (queue: string, n: number): void
  /** The end of an attempt. Stored only if the attempt still owns its job. */
  settle (attempt: Attempt, outcome: Outcome): Awaitable<void>
  /** Ignored when the attempt does not own its job any more. */
  note (attempt: Attempt, note: Note): Awaitable<void>

  /**
   * All or none. `staged`: they wait in `pending` for `release`. A duplicate that is not staged releases the job that
   * stands for it.
   */
  enqueue (jobs: readonly NewJob[], staged: boolean): Awaitable<Duplicates | void>
  /** Pending jobs may start; others are left as they are. */
  release (ids: readonly string[]): Awaitable<void>
  /** Ends a job that does not run; tells the sink to abort one that runs. `undefined`: there is no such job. */
  cancel (id: string, reason: CancelReason, detail: string): Awaitable<CancelAnswer>
  /**
   * Failed jobs start again, the i-th after i·`spacing` ms. Answers how many. `payloads`: those that replace theirs, by id;
   * only given to who is capable of `patch`.
   */
  retry (ids: readonly string[], spacing: number, payloads?: ReadonlyMap<string, Copied>): Awaitable<number>
  /** A delayed job may start now. Answers whether it was delayed. Absent: cannot. */
  promote? (id: string): Awaitable<boolean>
  /** Forgets final jobs. Answers how many. */
  remove (ids: readonly string[]): Awaitable<number>

  /** `undefined`: there is no such job. */
  get (id: string): Awaitable<JobRecord | undefined>
  /** In the order of making, or the other way round. */
  list (query: JobQuery): Awaitable<JobRecord[]>
  /** For each queue. */
  counts (): Awaitable<Record<string, QueueCounts>>
  /** By task; without it, nobody can tell. Asked at each scrape of metrics: what would cost as much as there are jobs is left without a task. */
  tally? (): Awaitable<Tally[]>
  /** Cheap and at once; for the limits of the waiting room. */
  load (queue: string): Load
  /**
   * Calls the listener at each change of state, before an ended job can be forgotten. The change is to be read in the
   * call. Answers how to stop, once it is sure that every later change is told.
   */
  watch (listener: (change: Change) => void): Awaitable<() => void>
  /** Called when `onIdle` finds nothing left to do: what it throws is thrown there. For backends of tests. */
  idle? (): void
  /** A shutdown waits for the jobs from now on, until its deadline by `clock`. */
  drain? (): void
  /** Resolves when nothing of it is left. What is still out of a durable backend is given back. */
  close (): Awaitable<void>
}

/** The backends of an application. */
export interface Backends {
  /** All of them as one. */
  readonly all: Backend
  /** Those whose jobs are lost with the process, as one. */
  readonly volatile: Backend
  /** Which one keeps a job; `inline`: its work is a function. */
  of (queue: string, inline: boolean): Backend
  /** Durable ones deliver nothing more. */
  retire (): void
}

const COUNTED = ['pending', 'waiting', 'delayed', 'waiting-children', 'active', 'completed', 'failed', 'cancelled'] as const

/** What a backend keeps, by task where it can tell. */
export async function tallyOf (backend: Backend): Promise<Tally[]> {
  if (backend.tally !== undefined) return backend.tally()
  return Object.entries(await backend.counts()).flatMap(([queue, counts]) => COUNTED.map((state) => ({ queue, task: '', state, jobs: counts[state] })))
}
