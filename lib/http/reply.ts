/** `reply.background` and `reply.accepted`. */
import type { FastifyReply } from 'fastify'
import type { Backend } from '../backend.ts'
import type { JobOptions } from '../job-options.ts'
import type { Intake } from '../jobs/add.ts'
import type { Control } from '../jobs/control.ts'
import { Handle, type JobHandle } from '../jobs/handle.ts'
import type { InlineFunction, PayloadArguments, PayloadOfName, Task, TaskName } from '../jobs/task.ts'
import type { Gate } from './gate.ts'

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
 * `{ jobId, name, state, statusUrl }`. Throws what `reply.background` throws.
 */
export interface AcceptJob<Reply> {
  <Payload>(task: Task<Payload>, ...rest: PayloadArguments<NoInfer<Payload>>): Reply
  <Name extends TaskName>(name: Name, ...rest: PayloadArguments<PayloadOfName<Name>>): Reply
}

export interface AcceptedBody {
  jobId: string
  name: string
  state: 'pending'
  statusUrl: string | null
}

export function createStage (intake: Intake, backend: Backend, gate: Gate, control: Control) {
  return function background (this: FastifyReply, target: unknown, second?: unknown, third?: unknown): JobHandle {
    const prepared = intake.prepare(target, second, third, { app: this.server, requestId: this.request.id, staged: true })
    intake.admit([prepared])
    const stored = backend.enqueue([prepared.job])
    gate.stage(this, prepared)
    return new Handle(control, prepared.job, stored instanceof Promise ? stored : undefined)
  }
}

export function accepted (this: FastifyReply, target: unknown, payload?: unknown, options?: unknown): FastifyReply {
  const stage = this.background as (...args: unknown[]) => JobHandle
  const { id, name, statusUrl } = stage.call(this, target, payload, options)
  if (statusUrl !== null) this.header('location', statusUrl)
  const body: AcceptedBody = { jobId: id, name, state: 'pending', statusUrl }
  return this.code(202).header('retry-after', '1').send(body)
}
