/**
 * Several backends as one. Each queue's tasks stand on the backend of that queue; inline functions live in memory on
 * any queue, and share its slots.
 */
import {
  tallyOf, type Awaitable, type Backend, type Backends, type BackendSettings, type CancelAnswer, type Change, type JobQuery, type Load, type Note, type QueueCounts, type Sink, type Tally
} from '../backend.ts'
import type { Clock } from '../clock.ts'
import { errors } from '../errors.ts'
import type { Attempt, CancelReason, JobRecord, NewJob, Outcome, Duplicate, Duplicates } from '../job.ts'
import type { Copied } from '../json.ts'
import { Lane } from './lane.ts'
import { memory } from './memory/index.ts'

/** `main`: of all queues without one of their own. */
export function combine (main: Backend | undefined, byQueue: ReadonlyMap<string, Backend>): Backends {
  const given = [...(main === undefined ? [] : [main]), ...byQueue.values()]
  const clock = given.find((backend) => backend.clock !== undefined)?.clock
  const usual = main ?? memory(clock && { clock })
  const functions = [usual, ...given].find((backend) => backend.capabilities.inline && !backend.durable) ?? memory(clock && { clock })
  const members = new Set([functions, usual, ...given])
  const of = (queue: string, inline: boolean): Backend => inline ? functions : byQueue.get(queue) ?? usual
  if (members.size === 1) return { all: functions, volatile: functions, of, retire () {} }
  const all = new Composite(members, functions, of, clock)
  const volatile = new Set([...members].filter((backend) => !backend.durable))
  return {
    all,
    volatile: volatile.size === 1 ? functions : new Composite(volatile, functions, of, clock),
    of,
    retire () { all.retire() }
  }
}

class Composite implements Backend {
  readonly name: string
  readonly durable: boolean
  readonly capabilities = { inline: true, delay: true, ttl: true, priority: true, limiter: true, deduplication: true, groups: true, cancelled: true }
  readonly clock?: Clock
  /** The one that keeps functions first: it answers at once. */
  readonly #members: readonly Backend[]
  readonly #functions: Backend
  readonly #of: Backends['of']
  readonly #lanes = new Map<string, Lane>()
  readonly #owners = new WeakMap<Attempt, Backend>()

  constructor (members: ReadonlySet<Backend>, functions: Backend, of: Backends['of'], clock: Clock | undefined) {
    this.#members = [...members]
    this.#functions = functions
    this.#of = of
    this.name = this.#members.map(({ name }) => name).join(', ')
    this.durable = this.#members.some(({ durable }) => durable)
    if (clock !== undefined) this.clock = clock
  }

  get unreachable (): boolean { return this.#members.some(({ unreachable }) => unreachable === true) }

  async start (sink: Sink, settings: BackendSettings): Promise<void> {
    const { queues } = settings
    for (const queue of queues.keys()) this.#lanes.set(queue, new Lane(queue, [...new Set([this.#functions, this.#of(queue, false)])]))
    for (const member of this.#members) {
      const own = new Map([...queues].filter(([queue]) => member === this.#functions || member === this.#of(queue, false)))
      await member.start(this.#between(member, sink), { ...settings, queues: own })
    }
  }

  /** What is durable delivers nothing more. */
  retire (): void {
    for (const lane of this.#lanes.values()) lane.retire()
  }

  want (queue: string, n: number): void {
    this.#lanes.get(queue)?.want(n)
  }

  settle (attempt: Attempt, outcome: Outcome): Awaitable<void> {
    const owner = this.#ownerOf(attempt)
    const lane = this.#lanes.get(attempt.job.queue)
    lane?.count(owner, -1)
    const stored = owner.settle(attempt, outcome)
    lane?.share()
    return stored
  }

  note (attempt: Attempt, note: Note): Awaitable<void> {
    return this.#ownerOf(attempt).note(attempt, note)
  }

  enqueue (jobs: readonly NewJob[], staged: boolean): Awaitable<Duplicates | void> {
    const [first] = jobs
    if (first !== undefined && jobs.length === 1) return this.#of(first.queue, first.local?.run !== undefined).enqueue(jobs, staged)
    const parts = new Map<Backend, NewJob[]>()
    for (const job of jobs) {
      const backend = this.#of(job.queue, job.local?.run !== undefined)
      const part = parts.get(backend)
      if (part === undefined) parts.set(backend, [job])
      else part.push(job)
    }
    const [only] = parts
    return parts.size === 1 && only !== undefined ? only[0].enqueue(only[1], staged) : this.#enqueueAll(parts, staged)
  }

  /** All or none: nothing may start before everybody has what is theirs. */
  async #enqueueAll (parts: ReadonlyMap<Backend, readonly NewJob[]>, staged: boolean): Promise<Duplicates> {
    const duplicates = new Map<string, Duplicate>()
    const done: Array<[Backend, string[]]> = []
    try {
      for (const [backend, jobs] of parts) {
        for (const [id, other] of await backend.enqueue(jobs, true) ?? []) duplicates.set(id, other)
        done.push([backend, jobs.map(({ id }) => id).filter((id) => !duplicates.has(id))])
      }
    } catch (error) {
      for (const [backend, ids] of done) {
        for (const id of ids) await backend.cancel(id, 'response', 'another job of the same call could not be stored')
        await backend.remove(ids)
      }
      throw error
    }
    if (staged) return duplicates
    for (const [backend, ids] of done) await backend.release(ids)
    await this.release([...duplicates.values()].map(({ id }) => id))
    return duplicates
  }

  async release (ids: readonly string[]): Promise<void> {
    for (const member of this.#members) await member.release(ids)
  }

  async cancel (id: string, reason: CancelReason, detail: string): Promise<CancelAnswer> {
    return (await this.#holderOf(id))?.cancel(id, reason, detail)
  }

  async retry (ids: readonly string[], spacing: number, payloads?: ReadonlyMap<string, Copied>): Promise<number> {
    const parts = await this.#partsOf(ids)
    let done = 0
    // Each counts the spacing for itself: together they would be too fast.
    for (const [member, own] of parts) done += await member.retry(own, spacing * parts.size, payloads)
    return done
  }

  async promote (id: string): Promise<boolean> {
    const holder = await this.#holderOf(id)
    if (holder !== undefined && holder.promote === undefined) throw new errors.NotSupported('promoting a delayed job', holder.name)
    return await holder?.promote?.(id) ?? false
  }

  async remove (ids: readonly string[]): Promise<number> {
    let done = 0
    for (const [member, own] of await this.#partsOf(ids)) done += await member.remove(own)
    return done
  }

  async get (id: string): Promise<JobRecord | undefined> {
    for (const member of this.#members) {
      const record = await member.get(id)
      if (record !== undefined) return record
    }
    return undefined
  }

  async list (query: JobQuery): Promise<JobRecord[]> {
    const found = await Promise.all(this.#members.map(async (member) => member.list(query)))
    const order = query.newestFirst === true ? -1 : 1
    return found.flat().sort((a, b) => a.id < b.id ? -order : order).slice(0, query.limit)
  }

  async counts (): Promise<Record<string, QueueCounts>> {
    const sums: Record<string, QueueCounts> = Object.create(null)
    for (const counts of await Promise.all(this.#members.map(async (member) => member.counts()))) {
      for (const [queue, found] of Object.entries(counts)) sums[queue] = sums[queue] === undefined ? found : add(sums[queue], found)
    }
    return sums
  }

  async tally (): Promise<Tally[]> {
    return (await Promise.all(this.#members.map(tallyOf))).flat()
  }

  load (queue: string): Load {
    const sum = { jobs: 0, bytes: 0 }
    for (const { jobs, bytes } of (this.#lanes.get(queue)?.backends ?? []).map((backend) => backend.load(queue))) {
      sum.jobs += jobs
      sum.bytes += bytes
    }
    return sum
  }

  async watch (listener: (change: Change) => void): Promise<() => void> {
    const stops: Array<() => void> = []
    const stop = (): void => { for (const each of stops) each() }
    try {
      for (const member of this.#members) stops.push(await member.watch(listener))
    } catch (error) {
      stop()
      throw error
    }
    return stop
  }

  drain (): void {
    for (const member of this.#members) member.drain?.()
  }

  idle (): void {
    for (const member of this.#members) member.idle?.()
  }

  async close (): Promise<void> {
    const closed = await Promise.allSettled(this.#members.map(async (member) => member.close()))
    for (const end of closed) if (end.status === 'rejected') throw end.reason
  }

  #between (member: Backend, sink: Sink): Sink {
    return {
      deliver: (attempts) => {
        for (const attempt of attempts) this.#owners.set(attempt, member)
        const lane = this.#lanes.get(attempts[0]?.job.queue ?? '')
        lane?.count(member, attempts.length)
        lane?.share()
        sink.deliver(attempts)
      },
      abort: (attempt, kind, detail) => { sink.abort(attempt, kind, detail) },
      report: (incident) => { sink.report(incident) }
    }
  }

  #ownerOf (attempt: Attempt): Backend {
    const owner = this.#owners.get(attempt)
    if (owner === undefined) throw new errors.JobNotFound()
    return owner
  }

  async #holderOf (id: string): Promise<Backend | undefined> {
    for (const member of this.#members) if (await member.get(id) !== undefined) return member
    return undefined
  }

  async #partsOf (ids: readonly string[]): Promise<Map<Backend, string[]>> {
    const parts = new Map<Backend, string[]>()
    for (const id of ids) {
      const holder = await this.#holderOf(id)
      if (holder !== undefined) parts.set(holder, [...parts.get(holder) ?? [], id])
    }
    return parts
  }
}

function add (a: QueueCounts, b: QueueCounts): QueueCounts {
  return {
    pending: a.pending + b.pending,
    waiting: a.waiting + b.waiting,
    delayed: a.delayed + b.delayed,
    'waiting-children': a['waiting-children'] + b['waiting-children'],
    retrying: a.retrying + b.retrying,
    limited: a.limited + b.limited,
    active: a.active + b.active,
    completed: a.completed + b.completed,
    failed: a.failed + b.failed,
    cancelled: a.cancelled + b.cancelled,
    oldestWaitingMs: Math.max(a.oldestWaitingMs, b.oldestWaitingMs)
  }
}
