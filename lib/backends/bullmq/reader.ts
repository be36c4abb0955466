/** Reading jobs: where one is, what it is, which there are. An id does not tell its queue: each one is asked. */
import type { Job, JobType } from 'bullmq'
import type { JobQuery, Tally } from '../../backend.ts'
import type { Clock } from '../../clock.ts'
import type { JobRecord, JobState } from '../../job.ts'
import type { Coder } from './codec.ts'
import { tallyOf } from './counts.ts'
import { asKin } from './flows.ts'
import type { BullmqQueue } from './queue.ts'
import type { DeadLetterRoom } from './retention.ts'
import { isOverdue, toRecord } from './stored.ts'

const STATES: Readonly<Record<string, JobState>> = {
  wait: 'waiting',
  waiting: 'waiting',
  prioritized: 'waiting',
  paused: 'waiting',
  delayed: 'delayed',
  active: 'active',
  'waiting-children': 'waiting-children',
  completed: 'completed',
  failed: 'failed'
}

/** Jobs of a list that are read together. */
const PAGE = 100

const TYPES: ReadonlyArray<readonly [JobType, readonly JobState[]]> = [
  ['waiting', ['waiting']],
  ['prioritized', ['waiting']],
  ['delayed', ['delayed', 'pending', 'waiting']],
  ['waiting-children', ['waiting-children']],
  ['active', ['active']],
  ['completed', ['completed']],
  ['failed', ['failed']]
]

export interface Found {
  readonly queue: BullmqQueue
  readonly state: JobState
}

export interface ReaderParts {
  readonly clock: Clock
  readonly coder: Coder
  readonly queues: ReadonlyMap<string, BullmqQueue>
  readonly deadLetters: ReadonlyMap<BullmqQueue, DeadLetterRoom>
  /** Ms that completed jobs may be read. */
  readonly completedAge: number
}

export class Reader {
  readonly #parts: ReaderParts

  constructor (parts: ReaderParts) {
    this.#parts = parts
  }

  async find (id: string): Promise<Found | undefined> {
    const found = await Promise.all([...this.#parts.queues.values()].map(async (queue) => {
      const state = STATES[await queue.store.getJobState(id)]
      return state === undefined ? undefined : { queue, state }
    }))
    return found.find((each) => each !== undefined)
  }

  async get (id: string): Promise<JobRecord | undefined> {
    const found = await this.find(id)
    return found && this.#read(found, id)
  }

  /** A delayed job may start. Answers whether it was one. */
  async promote (id: string): Promise<boolean> {
    const found = await this.find(id)
    if (found === undefined || (await this.#read(found, id))?.state !== 'delayed') return false
    await found.queue.store.getBackend().promote(id)
    return true
  }

  async list (query: JobQuery): Promise<JobRecord[]> {
    const places = await this.#places(query)
    const { after, newestFirst = false } = query
    const ids = [...places.keys()].filter((id) => after === undefined || (newestFirst ? id < after : id > after)).sort()
    if (newestFirst) ids.reverse()
    const records: JobRecord[] = []
    for (let first = 0; first < ids.length && records.length < query.limit; first += PAGE) {
      const page = await Promise.all(ids.slice(first, first + PAGE).map((id) => this.#read(places.get(id) as Found, id)))
      for (const record of page) {
        const fits = record !== undefined && (query.name === undefined || record.name === query.name) && (query.states?.includes(record.state) ?? true)
        if (fits && records.length < query.limit) records.push(record)
      }
    }
    return records
  }

  async tally (): Promise<Tally[]> {
    const { queues, clock } = this.#parts
    return (await Promise.all([...queues.values()].map(async (queue) => tallyOf(queue.store, queue.name, await queue.counts(), clock.now())))).flat()
  }

  /** By id; a job that moves meanwhile may be met in two states, of which the later counts. */
  async #places ({ states, queue: only }: JobQuery): Promise<Map<string, Found>> {
    const places = new Map<string, Found>()
    for (const queue of this.#parts.queues.values()) {
      if (only !== undefined && queue.name !== only) continue
      for (const [type, meant] of TYPES) {
        if (states !== undefined && !meant.some((state) => states.includes(state))) continue
        for (const ids of await queue.store.getBackend().getRanges([type], 0, -1, true)) {
          for (const id of ids as readonly string[]) places.set(id, { queue, state: STATES[type] as JobState })
        }
      }
    }
    return places
  }

  async #read ({ queue, state }: Found, id: string): Promise<JobRecord | undefined> {
    const job = await queue.store.getJob(id) as Job | undefined
    if (job === undefined || await this.#isOver(queue, state, job)) return undefined
    const now = this.#parts.clock.now()
    const stored = queue.jobOf(job)
    const record = toRecord(stored, job, state, this.#parts.coder, now)
    if (record.state === 'active') {
      const running = queue.running(id)
      if (running === undefined ? isOverdue(job, stored.policy, now) : running.overdue) record.overdue = true
    }
    return asKin(record, job)
  }

  /** Beyond its retention, although BullMQ has not looked at it yet. */
  async #isOver (queue: BullmqQueue, state: JobState, job: Job): Promise<boolean> {
    if (state === 'completed') return this.#parts.clock.now() - (job.finishedOn ?? Infinity) > this.#parts.completedAge
    const room = state === 'failed' ? this.#parts.deadLetters.get(queue) : undefined
    if (room === undefined || !room.isTooOld(job)) return false
    await room.evict(job)
    return true
  }
}
