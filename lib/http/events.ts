/**
 * Live states as server-sent events: the status document at each change, until the job has ended. A change of state is
 * told at once, all else (progress, other processes' news that got lost) within a second.
 *
 * An event's id is made of what it says, so any process can tell whether a client that comes back knows it already.
 */
import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import type { Clock, Timer } from '../clock.ts'
import { errors } from '../errors.ts'
import { isFinal, type JobRecord, type JobState } from '../job.ts'
import type { Control } from '../jobs/control.ts'
import type { Drain } from '../jobs/drain.ts'
import type { RouteSettings } from '../route-options.ts'
import type { Access } from './access.ts'
import { addRoute } from './route.ts'
import { errorSchema, eventsSchema, idParams, silence } from './schemas.ts'
import { statusBody, type StatusBody } from './views.ts'

/** Streams at once, in all and of one address. */
const MOST = 100
const MOST_EACH = 2
/** Ms after which a stream ends: a client comes back, and is asked for its rights again. */
const LIFE = 15 * 60_000
/** Ms without an event after which a comment is sent, so that nobody on the way takes the connection for dead. */
const HEARTBEAT = 15_000
/** Ms between two looks at a job that nobody told of. */
const LOOK = 1_000
/** Ms after which a client may come back. */
const RETRY = 1_000

export interface EventParts {
  readonly clock: Clock
  readonly control: Control
  readonly access: Access
  readonly drain: Drain
}

export function addEventsRoute (app: FastifyInstance, path: string, routes: RouteSettings, { clock, control, access, drain }: EventParts): void {
  const streams = new Streams(clock, control)
  drain.onClosing(() => { streams.endAll() })
  addRoute<{ Params: { id: string } }>(app, routes, {
    method: 'GET',
    path,
    summary: 'State of a background job, as server-sent events until it has ended',
    head: false,
    schema: { params: idParams, response: { 200: eventsSchema, 204: silence, 404: errorSchema, 429: errorSchema, 503: errorSchema } },
    handler: async (request, reply) => {
      const record = await access.to(request, 'read', await control.get(request.params.id))
      const show = (job: JobRecord): StatusBody => statusBody(job, access.guarded)
      const last = String(request.headers['last-event-id'] ?? '')
      reply.header('cache-control', 'no-store, no-transform')
      // To a browser that has heard the end, this says not to come back.
      if (isFinal(record.state) && last === idOf(show(record))) return reply.code(204).send()
      const stream = streams.open(request.ip, record.id, last, show)
      return reply.header('content-type', 'text/event-stream; charset=utf-8').header('x-accel-buffering', 'no').send(stream)
    }
  })
}

class Streams {
  readonly #clock: Clock
  readonly #control: Control
  readonly #open = new Set<Stream>()
  readonly #byClient = new Map<string, number>()
  #timer: Timer | undefined
  #closing = false

  constructor (clock: Clock, control: Control) {
    this.#clock = clock
    this.#control = control
  }

  /** @throws FST_BG_TOO_MANY_STREAMS */
  open (client: string, id: string, last: string, show: (job: JobRecord) => StatusBody): Readable {
    const own = this.#byClient.get(client) ?? 0
    if (own >= MOST_EACH) throw tooMany(`${MOST_EACH} of one client`, 429)
    if (this.#open.size >= MOST) throw tooMany(`${MOST} in all`, 503)
    this.#byClient.set(client, own + 1)
    const stream = new Stream(this.#clock.monotonic(), last, () => this.#control.get(id), show)
    this.#open.add(stream)
    const leave = this.#control.follow(id, (state) => { stream.look(this.#clock.monotonic(), state) })
    stream.readable.once('close', () => {
      leave()
      this.#open.delete(stream)
      const left = (this.#byClient.get(client) ?? 1) - 1
      if (left === 0) this.#byClient.delete(client)
      else this.#byClient.set(client, left)
      if (this.#open.size === 0 && this.#timer !== undefined) this.#clock.clearTimer(this.#timer)
    })
    stream.look(this.#clock.monotonic())
    if (this.#closing) stream.end()
    else if (this.#open.size === 1) this.#tick()
    return stream.readable
  }

  endAll (): void {
    this.#closing = true
    for (const stream of this.#open) stream.end()
  }

  #tick (): void {
    this.#timer = this.#clock.setTimer(() => {
      const now = this.#clock.monotonic()
      for (const stream of this.#open) stream.pass(now)
      if (this.#open.size > 0) this.#tick()
    }, LOOK)
  }
}

/** One client's. What it does not read in time is not kept for it: it hears how things stand when it reads on. */
class Stream {
  readonly readable: Readable
  readonly #begun: number
  readonly #read: () => Promise<JobRecord | undefined>
  readonly #show: (job: JobRecord) => StatusBody
  /** Id of the last event that the client has. */
  #known: string
  #last: StatusBody | undefined
  /** Looks are told in their order. */
  #looks = Promise.resolve()
  #spoke: number
  #full = false
  #over = false

  constructor (now: number, known: string, read: () => Promise<JobRecord | undefined>, show: (job: JobRecord) => StatusBody) {
    this.#begun = this.#spoke = now
    this.#known = known
    this.#read = read
    this.#show = show
    this.readable = new Readable({ read: () => { this.#full = false } })
    this.readable.push(`retry: ${RETRY}\n\n`) // sends the headers, too
  }

  /** `told`: the state of which it was told. */
  look (now: number, told?: JobState): void {
    if (this.#over || this.#full) return
    const reading = this.#read() // at once: later it may stand elsewhere
    reading.catch(() => {})
    this.#looks = this.#looks.then(async () => { this.#tell(await reading, told, now) }).catch(() => {}) // the store is away
  }

  /** Time has passed. */
  pass (now: number): void {
    if (now - this.#begun >= LIFE) return this.end()
    this.look(now)
    if (now - this.#spoke >= HEARTBEAT) this.#say(':\n\n', now)
  }

  /** After what was seen already. */
  end (): void {
    void this.#looks.then(() => { this.#finish() })
  }

  #tell (record: JobRecord | undefined, told: JobState | undefined, now: number): void {
    if (record !== undefined) this.#last = this.#show(record)
    // Some stores do not keep what was cancelled.
    else if (told === 'cancelled' && this.#last !== undefined) this.#last = { ...this.#last, state: 'cancelled' }
    else return this.#finish()
    const id = idOf(this.#last)
    if (id !== this.#known) this.#say(`id: ${id}\ndata: ${JSON.stringify(this.#last)}\n\n`, now)
    this.#known = id
    if (isFinal(this.#last.state)) this.#finish()
  }

  #say (text: string, now: number): void {
    if (this.#over) return
    this.#spoke = now
    this.#full = !this.readable.push(text)
  }

  #finish (): void {
    if (this.#over) return
    this.#over = true
    this.readable.push(null)
  }
}

function idOf (body: StatusBody): string {
  return createHash('sha256').update(JSON.stringify(body)).digest('base64url').slice(0, 16)
}

function tooMany (limit: string, statusCode: number): Error {
  return Object.assign(new errors.TooManyStreams(limit), { statusCode, headers: { 'retry-after': '5' } })
}
