/**
 * The connections of one process: one for all queues, made by the queue that control messages go through, two for each
 * worker (one of them waits for work), one for each stream of events that is listened to.
 */
import type { EventEmitter } from 'node:events'
import type * as Bullmq from 'bullmq'
import type { BackendFactory, IQueueBackend, Job, PostgresQueueBackend, Queue, QueueEvents, QueueOptions, Worker, WorkerOptions } from 'bullmq'
import type { Clock } from '../../clock.ts'
import { errors } from '../../errors.ts'
import { importPeer } from '../../peer.ts'
import type { BullmqSettings } from './options.ts'
import { within } from './reach.ts'

export type StoreQueue = Queue<unknown, unknown, string, unknown, unknown, string, IQueueBackend>
export type StoreWorker = Worker<unknown, unknown, string, IQueueBackend>
export type StoreEvents = QueueEvents<unknown, IQueueBackend>

type Connected = StoreQueue | StoreWorker | StoreEvents

/** Ms in which a connection closes in good order. */
const CLOSING = 2_000

/** A queue that holds no jobs: its stream of events carries what processes tell each other. */
export const CONTROL = 'fastify-background-tasks'

type Module = typeof Bullmq

export class Connections {
  readonly control: StoreQueue
  readonly #bullmq: Module
  readonly #settings: BullmqSettings
  readonly #factory: BackendFactory<IQueueBackend>
  readonly #failed: (error: unknown) => void
  readonly #clock: Clock
  readonly #open = new Set<Connected>()
  #flows: Bullmq.FlowProducer<IQueueBackend> | undefined
  #closed = false

  private constructor (bullmq: Module, settings: BullmqSettings, clock: Clock, failed: (error: unknown) => void) {
    this.#bullmq = bullmq
    this.#clock = clock
    this.#settings = settings
    this.#failed = failed
    this.#factory = (settings.store === 'postgres' ? bullmq.createPostgresBackend : bullmq.createRedisBackend) as unknown as BackendFactory<IQueueBackend>
    // Who adds a job waits for the answer: a connection that is gone must say so at once, not keep the job for later.
    const own = settings.store === 'redis' && !settings.shared ? { ...settings.connection, enableOfflineQueue: false } : settings.connection
    this.control = new bullmq.Queue(CONTROL, { connection: own, prefix: settings.prefix, skipMetasUpdate: true }, this.#factory) as StoreQueue
    this.#own(this.control)
  }

  /** `failed` hears every error of a connection. @throws FST_BG_PEER_MISSING */
  static async open (settings: BullmqSettings, clock: Clock, failed: (error: unknown) => void): Promise<Connections> {
    const client = settings.store === 'postgres' ? 'pg' : 'ioredis'
    const bullmq = await importPeer('the backend "bullmq"', `bullmq ${client}`, () => import('bullmq'))
    return new Connections(bullmq, settings, clock, failed)
  }

  /** Shares the connection of the control queue. */
  queue (name: string, options: Partial<QueueOptions> = {}): StoreQueue {
    const { connection, prefix } = this.#settings
    const sibling = (): IQueueBackend => this.control.getBackend().forQueue(name, prefix)
    return new this.#bullmq.Queue(name, { ...options, connection, prefix }, sibling) as StoreQueue
  }

  /** All jobs of a flow in one call to the store. */
  async addFlow (flow: Bullmq.FlowJob): Promise<void> {
    const { connection, prefix } = this.#settings
    const sibling = (): IQueueBackend => this.control.getBackend().forQueue('', prefix)
    this.#flows ??= new this.#bullmq.FlowProducer({ connection, prefix }, sibling)
    await this.#flows.add(flow)
  }

  worker (name: string, processor: (job: Job, token?: string) => Promise<unknown>, options: Partial<WorkerOptions>): StoreWorker {
    const { connection, prefix } = this.#settings
    const worker = new this.#bullmq.Worker(name, processor, { ...options, connection, prefix, autorun: false }, this.#factory) as StoreWorker
    return this.#own(worker)
  }

  /** Of the events after this one. @throws FST_BG_CLOSING */
  events (name: string, lastEventId: string): StoreEvents {
    if (this.#closed) throw new errors.Closing()
    const { connection, prefix } = this.#settings
    const events = new this.#bullmq.QueueEvents(name, { connection, prefix, lastEventId, autorun: false }, this.#factory) as StoreEvents
    events.run().catch(this.#failed)
    return this.#own(events)
  }

  /** What a processor throws when its job has been moved already: the worker then only looks for the next one. */
  get moved (): Error { return new this.#bullmq.DelayedError() }

  /** Resolves when it is closed, or cut off because that took longer than `CLOSING`. Never rejects. */
  async close (one: Connected): Promise<void> {
    this.#open.delete(one)
    // On PostgreSQL, one that is closed while it connects leaves connections behind (BullMQ 6.7).
    const ready = this.#settings.store === 'postgres' ? one.waitUntilReady().catch(() => {}) : Promise.resolve()
    const closed = ready.then(() => one.close()).catch(this.#failed)
    await within(this.#clock, CLOSING, closed, () => { one.getBackend().close(true).catch(this.#failed) })
  }

  async closeAll (): Promise<void> {
    this.#closed = true
    // What a worker has in hand still asks through the connection of the control queue.
    await Promise.all([...this.#open].filter((one) => one !== this.control).map((one) => this.close(one)))
    await this.close(this.control)
    poolOf(this.control)?.off('acquire', this.#hear)
  }

  #own<T extends Connected> (one: T): T {
    ;(one as StoreQueue).on('error', this.#failed)
    this.#open.add(one)
    const pool = poolOf(one)
    if (pool?.listeners('acquire').includes(this.#hear) === false) pool.on('acquire', this.#hear)
    return one
  }

  /** BullMQ 6.7 sets a connection to PostgreSQL up with nobody to hear that it has ended, which would end the process. */
  readonly #hear = (client: EventEmitter): void => {
    if (!client.listeners('error').includes(this.#failed)) client.on('error', this.#failed)
  }
}

/** Of PostgreSQL. Several share one if it is the application's. */
function poolOf (one: Connected): EventEmitter | undefined {
  const { pool } = (one.getBackend() as PostgresQueueBackend).connection
  return pool as unknown as EventEmitter | undefined
}
