/** `reply.background` and `reply.accepted`. */
import type { FastifyReply } from 'fastify'
import type { Backends } from '../backend.ts'
import { errors } from '../errors.ts'
import { isFinal, type JobState, type Duplicate, type Duplicates } from '../job.ts'
import type { JobOptions } from '../job-options.ts'
import { standIn, type Intake } from '../jobs/add.ts'
import type { Control } from '../jobs/control.ts'
import { Handle, type JobHandle } from '../jobs/handle.ts'
import type { MadeJob } from '../jobs/made.ts'
import type { InlineFunction, PayloadArguments, PayloadOfName, Task, TaskName } from '../jobs/task.ts'
import type { Observer } from '../observe.ts'
import type { DurableDoor } from './durable.ts'
import type { Gate } from './gate.ts'
import { KeysInFlight, readKey, type ClientKey } from './idempotency.ts'
import { readPrefer, type Waits } from './prefer.ts'
import { statusBody } from './views.ts'

/**
 * Adds a job that starts when this response is over; answers at once, and never touches the response. Works in every
 * handler and hook that has a reply.
 * @throws FST_BG_QUEUE_FULL, FST_BG_CLOSING, FST_BG_UNKNOWN_TASK, FST_BG_BAD_PAYLOAD, FST_BG_PAYLOAD_NOT_JSON,
 * FST_BG_PAYLOAD_TOO_LARGE, FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION, FST_BG_UNKNOWN_QUEUE
 */
export interface StageJob {
  <Result>(work: InlineFunction<Result>, options?: JobOptions): JobHandle<Result>
  <Payload, Result>(task: Task<Payload, Result>, ...rest: PayloadArguments<NoInfer<Payload>>): JobHandle<Result>
  <Name extends TaskName>(name: Name, ...rest: PayloadArguments<PayloadOfName<Name>>): JobHandle
}

/**
 * The whole pattern in one call, to be returned: adds the job and sends `202` with `Location`, `Retry-After` and
 * `{ jobId, name, state, statusUrl }`. With `Prefer: wait=N`, where `maxWait` allows it, the job starts at once, and if
 * it ends in time the answer is `200` with its status document. A request that repeats an `Idempotency-Key` and its body
 * gets the answer of the first, with `Idempotent-Replayed: true`; while that is not out `409`, with another body `422`.
 * Throws what `reply.background` throws.
 */
export interface AcceptJob<Reply> {
  <Payload>(task: Task<Payload>, ...rest: PayloadArguments<NoInfer<Payload>>): Reply
  <Name extends TaskName>(name: Name, ...rest: PayloadArguments<PayloadOfName<Name>>): Reply
}

/** The body of a 202. */
export interface AcceptedBody {
  jobId: string
  name: string
  state: JobState
  statusUrl: string | null
}

interface ReplyParts {
  readonly intake: Intake
  readonly backends: Backends
  readonly gate: Gate
  /** Only where a queue's backend is durable. */
  readonly door: DurableDoor | undefined
  readonly control: Control
  readonly observer: Observer
  readonly waits: Waits
  /** Ms; 0: `Prefer: wait` is not looked at. */
  readonly maxWait: number
  /** Ms that the key of a client is remembered. */
  readonly keyAge: number
}

type Stage = (reply: FastifyReply, job: MadeJob) => JobHandle

/** Hands a job over that starts when the reply's response is over. */
function createHandover ({ intake, backends, gate, door, control, observer }: ReplyParts): Stage {
  return (reply, job) => {
    const backend = backends.of(job.queue, job.local?.run !== undefined)
    const isDurable = door !== undefined && backend.durable
    // Which job the handle is of, the store alone knows, and it does not answer at once.
    if (isDurable && job.policy.deduplication !== undefined) throw new errors.NotSupported('deduplication in reply.background', backend.name)
    intake.admit(job)
    if (isDurable) return new Handle(control, job, door.stage(reply, job))
    const jobs = [job]
    const stored = backend.enqueue(jobs, true)
    const later = stored instanceof Promise ? stored.then((duplicates) => { observer.added(jobs, duplicates) }) : undefined
    if (later === undefined) observer.added(jobs, stored as Duplicates | undefined)
    if (later === undefined && stored !== undefined) standIn(jobs, stored as Duplicates)
    gate.stage(reply, job)
    return new Handle(control, job, later && { accepted: later, open: false })
  }
}

export function createStage (parts: ReplyParts) {
  const handOver = createHandover(parts)
  return function background (this: FastifyReply, target: unknown, second?: unknown, third?: unknown): JobHandle {
    return handOver(this, parts.intake.prepare(target, second, third, this.server, this.request.id))
  }
}

export function createAccepted (parts: ReplyParts) {
  const { intake, backends, control, gate, door, waits } = parts
  const handOver = createHandover(parts)
  const keys = new KeysInFlight(gate)

  return function accepted (this: FastifyReply, target: unknown, payload?: unknown, options?: unknown): FastifyReply {
    const { wait, applied } = readPrefer(this.request.headers.prefer, parts.maxWait)
    if (parts.maxWait > 0) addVary(this, 'Prefer')
    if (applied !== '') this.header('preference-applied', applied)
    const job = intake.prepare(target, payload, options, this.server, this.request.id)
    const key = keyFor(this, job)
    if (wait > 0 || job.policy.deduplication !== undefined) {
      intake.admit(job)
      answerStored(this, job, wait, key).catch((error: unknown) => { this.send(error) })
      return this
    }
    const { id, name, statusUrl } = handOver(this, job)
    return answerAccepted(this, { jobId: id, name, state: 'pending', statusUrl })
  }

  /** A job is recognized by one id: that of the application goes before that of its client. */
  function keyFor (reply: FastifyReply, job: MadeJob): ClientKey | undefined {
    if (job.policy.deduplication !== undefined || !backends.of(job.queue, false).capabilities.deduplication) return undefined
    const key = readKey(reply.request, job.payload)
    if (key !== undefined) job.policy = Object.freeze({ ...job.policy, deduplication: { ...key, ttl: parts.keyAge } })
    return key
  }

  /** When the store has the job: then it is known which job it is, and it can be waited for. */
  async function answerStored (reply: FastifyReply, job: MadeJob, wait: number, key: ClientKey | undefined): Promise<void> {
    const own = job.id
    // A job that is waited for cannot wait for its response.
    const store = async (): Promise<Duplicate | undefined> => (await intake.store([job], wait === 0))?.get(own)
    const isReplay = key === undefined ? await store().then(() => false) : await keys.enter(reply, key, store)
    if (isReplay) reply.header('idempotent-replayed', 'true')
    if (wait === 0) hold(reply, job)
    const record = wait > 0 ? await waits.wait(reply, job.id, wait) : isReplay || job.id === own ? undefined : await control.get(job.id)
    if (wait > 0 && record !== undefined && isFinal(record.state)) {
      reply.code(200).header('cache-control', 'no-store').send(statusBody(record, false))
    } else {
      const state = record?.state ?? (wait > 0 ? 'waiting' : 'pending')
      answerAccepted(reply, { jobId: job.id, name: job.name, state, statusUrl: control.statusUrl(job.id) })
    }
  }

  function hold (reply: FastifyReply, job: MadeJob): void {
    if (door !== undefined && backends.of(job.queue, job.local?.run !== undefined).durable) door.hold(reply, job)
    else gate.stage(reply, job)
  }
}

function answerAccepted (reply: FastifyReply, body: AcceptedBody): FastifyReply {
  if (body.statusUrl !== null) reply.header('location', body.statusUrl)
  return reply.code(202).header('retry-after', '1').send(body)
}

function addVary (reply: FastifyReply, field: string): void {
  const vary = reply.getHeader('vary')
  if (vary === undefined) reply.header('vary', field)
  else if (!String(vary).toLowerCase().split(/\s*,\s*/).includes(field.toLowerCase())) reply.header('vary', `${String(vary)}, ${field}`)
}
