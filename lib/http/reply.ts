/** `reply.background` and `reply.accepted`. */
import type { FastifyReply } from 'fastify'
import type { Backends } from '../backend.ts'
import { isFinal, type JobState, type NewJob } from '../job.ts'
import type { JobOptions } from '../job-options.ts'
import type { Intake } from '../jobs/add.ts'
import type { Control } from '../jobs/control.ts'
import { Handle, type JobHandle } from '../jobs/handle.ts'
import type { InlineFunction, PayloadArguments, PayloadOfName, Task, TaskName } from '../jobs/task.ts'
import type { DurableDoor } from './durable.ts'
import type { Gate } from './gate.ts'
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
 * it ends in time the answer is `200` with its status document. Throws what `reply.background` throws.
 */
export interface AcceptJob<Reply> {
  <Payload>(task: Task<Payload>, ...rest: PayloadArguments<NoInfer<Payload>>): Reply
  <Name extends TaskName>(name: Name, ...rest: PayloadArguments<PayloadOfName<Name>>): Reply
}

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
  readonly waits: Waits
  /** Ms; 0: `Prefer: wait` is not looked at. */
  readonly maxWait: number
}

export function createStage ({ intake, backends, gate, door, control }: ReplyParts) {
  return function background (this: FastifyReply, target: unknown, second?: unknown, third?: unknown): JobHandle {
    const job = intake.prepare(target, second, third, this.server, this.request.id)
    intake.admit(job)
    const backend = backends.of(job.queue, job.local?.run !== undefined)
    if (door !== undefined && backend.durable) return new Handle(control, job, door.stage(this, job))
    const stored = backend.enqueue([job], true)
    gate.stage(this, job)
    return new Handle(control, job, stored instanceof Promise ? { accepted: stored, open: false } : undefined)
  }
}

export function createAccepted (parts: ReplyParts) {
  const stage = createStage(parts)

  return function accepted (this: FastifyReply, target: unknown, payload?: unknown, options?: unknown): FastifyReply {
    const { wait, applied } = readPrefer(this.request.headers.prefer, parts.maxWait)
    if (parts.maxWait > 0) addVary(this, 'Prefer')
    if (applied !== '') this.header('preference-applied', applied)
    if (wait > 0) {
      answerInTime(this, addAtOnce(this, target, payload, options), wait).catch((error: unknown) => { this.send(error) })
      return this
    }
    const { id, name } = stage.call(this, target, payload, options)
    return answerAccepted(this, { jobId: id, name, state: 'pending', statusUrl: parts.control.statusUrl(id) })
  }

  /** A job that is waited for cannot wait for its response. */
  function addAtOnce (reply: FastifyReply, target: unknown, payload: unknown, options: unknown): NewJob {
    const job = parts.intake.prepare(target, payload, options, reply.server, reply.request.id)
    parts.intake.admit(job)
    return job
  }

  async function answerInTime (reply: FastifyReply, job: NewJob, wait: number): Promise<void> {
    await parts.intake.store([job], false)
    const record = await parts.waits.wait(reply, job.id, wait)
    if (record !== undefined && isFinal(record.state)) {
      reply.code(200).header('cache-control', 'no-store').send(statusBody(record, false))
    } else {
      answerAccepted(reply, { jobId: job.id, name: job.name, state: record?.state ?? 'waiting', statusUrl: parts.control.statusUrl(job.id) })
    }
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
