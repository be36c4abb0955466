/**
 * Who accepted a job writes it down before the call, so that a lost one is seen. What is known of a response here comes
 * from the handler and from Node's own events, never from the plugin.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { JobOptions, JobRecord, ResponseOutcome } from '../../../lib/index.ts'
import { onResponseEnd } from '../../support/response-end.ts'
import type { SkippingClock } from './clock.ts'
import { nextTurn } from './handlers.ts'
import type { Job, Request, Unit } from './plan.ts'
import type { Site } from './sites.ts'
import { Traces } from './traces.ts'

/** Of how many responses one is searched for what was left on it. */
const SAMPLE = 4

const whens: Record<string, (outcome: ResponseOutcome) => boolean> = {
  yes: () => true,
  no: () => false,
  'below 400': ({ statusCode }) => statusCode < 400,
  'not aborted': ({ aborted }) => !aborted,
  throws: () => { throw new Error('broken on purpose') }
}

export class Entry {
  readonly number: number
  readonly visit: Visit
  readonly job: Job
  id = ''
  runs = 0
  /** It ran, or its `when` was asked, before the response was over or in the stack or the microtasks of that event. */
  early = false
  /** How often its `when` was asked, what it was told and what it said. */
  asked = 0
  outcome: ResponseOutcome | undefined
  said: boolean | undefined
  record: JobRecord | undefined
  /** Only maxHold brought its end, although its handler and its client had ended. */
  unheard = false

  constructor (number: number, visit: Visit, job: Job) {
    this.number = number
    this.visit = visit
    this.job = job
  }

  get final (): boolean { return this.record?.state === 'completed' || this.record?.state === 'cancelled' || this.record?.state === 'failed' }
}

/** One response that staged jobs. */
export class Visit {
  readonly site: Site
  readonly request: Request
  readonly inner: boolean
  readonly clean: boolean
  readonly entries: Entry[] = []
  /** Resolves when the response is over. */
  readonly end: Promise<void>
  readonly traces: Traces | undefined
  readonly #clock: SkippingClock
  #over = false
  #answered = false
  /** The callback of the event loop in which both came true. */
  #since = 0

  constructor (site: Site, reply: FastifyReply, request: Request, looks: boolean) {
    this.site = site
    this.request = request
    this.inner = reply.request.headers['x-inner'] !== undefined
    this.clean = this.inner || request.clean
    this.#clock = site.clock
    this.end = new Promise((resolve) => {
      onResponseEnd(reply, () => {
        this.#over = true
        this.#since = this.#clock.callbacks
        resolve()
      })
    })
    this.traces = looks ? new Traces(reply) : undefined
  }

  /** The handler has come to its answer. */
  answer (): void {
    this.#answered = true
    this.#since = this.#clock.callbacks
  }

  get mayStart (): boolean { return this.#over && this.#answered && this.#clock.callbacks > this.#since }

  /** As many turns of the loop as the plan says. */
  async takeTime (): Promise<void> {
    for (let turn = 0; turn < this.request.turns; turn++) await nextTurn()
  }
}

export class Ledger {
  visits: Visit[] = []
  entries: Entry[] = []
  /** Time was skipped: what never answers was given up. */
  skipped = false
  /** Jobs of an earlier phase that ran in a later one. */
  strays = 0
  #first = 0
  #byRaw = new WeakMap<object, Visit>()
  readonly #requests = new Map<number, Request>()
  readonly #waiting = new Map<number, () => void>()

  /** A client is about to ask these. */
  expect (unit: Unit): void {
    for (const request of unit.requests) this.#requests.set(request.n, request)
  }

  /** Resolves when the handler has accepted the jobs of a request. */
  accepted (n: number): Promise<void> {
    return new Promise((resolve) => { this.#waiting.set(n, resolve) })
  }

  /** Stages the request's jobs, all or the chosen ones; called by handlers and hooks. */
  arrive (site: Site, reply: FastifyReply, chosen: (index: number) => boolean = () => true): Visit {
    const visit = this.#visitOf(site, reply)
    for (const [index, job] of visit.request.jobs.entries()) if (chosen(index)) this.#accept(visit, reply, job)
    this.#waiting.get(visit.request.n)?.()
    return visit
  }

  /** Stages one job by `reply.accepted`, which answers. */
  arriveAccepted (site: Site, reply: FastifyReply): void {
    const visit = this.#visitOf(site, reply)
    visit.answer()
    const entry = this.#write(visit, visit.request.jobs[0] as Job)
    this.#waiting.get(visit.request.n)?.()
    this.#watched(visit, () => reply.accepted('chaos', { number: entry.number }, this.#options(entry)))
  }

  learnId (reply: FastifyReply, id: string): void {
    const [entry] = this.#byRaw.get(reply.raw)?.entries ?? []
    if (entry !== undefined) entry.id = id
  }

  #visitOf (site: Site, reply: FastifyReply): Visit {
    let visit = this.#byRaw.get(reply.raw)
    if (visit === undefined) {
      // Before the plugin is called: our listeners come before its own.
      visit = new Visit(site, reply, this.#requestOf(reply.request), this.visits.length % SAMPLE === 0)
      this.#byRaw.set(reply.raw, visit)
      this.visits.push(visit)
    }
    return visit
  }

  #requestOf ({ headers }: FastifyRequest): Request {
    return this.#requests.get(Number(headers['x-n'])) as Request
  }

  #accept (visit: Visit, reply: FastifyReply, job: Job): void {
    const entry = this.#write(visit, job)
    const { id } = this.#watched(visit, () => job.task
      ? reply.background('chaos', { number: entry.number }, this.#options(entry))
      : reply.background(() => this.ran(entry.number), this.#options(entry)))
    entry.id = id
  }

  #watched<T> (visit: Visit, stage: () => T): T {
    return visit.traces === undefined ? stage() : visit.traces.watch(stage)
  }

  #write (visit: Visit, job: Job): Entry {
    const entry = new Entry(this.#first + this.entries.length, visit, job)
    this.entries.push(entry)
    visit.entries.push(entry)
    return entry
  }

  #options (entry: Entry): JobOptions {
    const { when, onAbort } = entry.job
    const decide = when === undefined ? undefined : whens[when]
    const asked = (outcome: ResponseOutcome): boolean => {
      entry.asked++
      entry.outcome = outcome
      this.#look(entry)
      entry.said = false
      return (entry.said = decide?.(outcome) ?? false)
    }
    return {
      ...(when === undefined ? {} : { when: decide === undefined ? when as 'always' : asked }),
      ...(onAbort === undefined ? {} : { onAbort })
    }
  }

  /** The body of every job. */
  async ran (number: number): Promise<void> {
    const entry = this.entries[number - this.#first]
    if (entry === undefined) return void this.strays++
    entry.runs++
    this.#look(entry)
    if (entry.job.slow) await entry.visit.takeTime()
  }

  #look (entry: Entry): void {
    if (!this.skipped && !entry.visit.mayStart) entry.early = true
  }

  /** For the next phase. No number is used twice. */
  clear (): void {
    this.#first += this.entries.length
    this.visits = []
    this.entries = []
    this.#requests.clear()
    this.#waiting.clear()
    this.skipped = false
  }
}
