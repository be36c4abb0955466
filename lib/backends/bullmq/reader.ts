/** Reading jobs: where one is, what it is, which there are. An id does not tell its queue: each one is asked. */
import type { Job } from 'bullmq'
import type { JobQuery, Tally } from '../../backend.ts'
import type { Clock } from '../../clock.ts'
import type { JobRecord, JobState } from '../../job.ts'
import type { Coder } from './codec.ts'
import { tallyOf } from './counts.ts'
import { asKin } from './flows.ts'
import { idsIn, MOST_IDS, type Place } from './glance.ts'
import type { BullmqQueue } from './queue.ts'
import { isDone, type Reach } from './reach.ts'
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

const PLACES: ReadonlyArray<readonly [Place, readonly JobState[]]> = [
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
  readonly reach: Reach
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
    return isDone(() => found.queue.store.getBackend().promote(id))
  }

  /** Each call to the store is bounded, not all of them together: a long list is no store that is away. */
  async list (query: JobQuery): Promise<JobRecord[]> {
    const { states, name, limit } = query
    const size = Math.min(PAGE, limit)
    const records: JobRecord[] = []
    for (let after = query.after, more = true; more && records.length < limit;) {
      const places = await this.#next(query, after)
      for (let first = 0; first < places.length && records.length < limit; first += size) {
        const page = places.slice(first, first + size)
        for (const record of await this.#parts.reach.bounded(() => Promise.all(page.map(([id, found]) => this.#read(found, id))))) {
          const fits = record !== undefined && (name === undefined || record.name === name) && (states?.includes(record.state) ?? true)
          if (fits && records.length < limit) records.push(record)
        }
      }
      after = places.at(-1)?.[0]
      more = places.length === MOST_IDS
    }
    return records
  }

  async tally (): Promise<Tally[]> {
    const { queues, clock } = this.#parts
    return (await Promise.all([...queues.values()].map(async (queue) => tallyOf(queue.store, queue.name, await queue.counts(), clock.now())))).flat()
  }

  /** The next `MOST_IDS` in order, or as many as there are; a job that moves meanwhile may be met in two places, of which the later counts. */
  async #next ({ states, queue: only, name, newestFirst = false }: JobQuery, after: string | undefined): Promise<Array<readonly [string, Found]>> {
    const isBeyond = (id: string, mark: string | undefined): boolean => mark === undefined || (newestFirst ? id < mark : id > mark)
    const inOrder = ([a]: readonly [string, Found], [b]: readonly [string, Found]): number => isBeyond(a, b) ? 1 : -1
    let places = new Map<string, Found>()
    let last = ''
    const cut = (): Array<[string, Found]> => [...places].sort(inOrder).slice(0, MOST_IDS)
    for (const queue of this.#parts.queues.values()) {
      if (only !== undefined && queue.name !== only) continue
      for (const [place, meant] of PLACES) {
        if (states !== undefined && !meant.some((state) => states.includes(state))) continue
        const found: Found = { queue, state: STATES[place] as JobState }
        let cursor: string | undefined
        do {
          const page = await this.#parts.reach.bounded(() => idsIn(queue.store, place, { name, after, newestFirst }, cursor))
          for (const id of page.ids) if (isBeyond(id, after) && (last === '' || !isBeyond(id, last))) places.set(id, found)
          if (places.size > 2 * MOST_IDS) {
            places = new Map(cut())
            last = [...places.keys()].at(-1) as string
          }
          cursor = page.cursor
        } while (cursor !== undefined)
      }
    }
    return cut()
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
