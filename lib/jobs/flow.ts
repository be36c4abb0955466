/** Flows: jobs that wait for their children, checked as a whole and handed to one backend in one call. */
import type { FastifyInstance } from 'fastify'
import type { Backend, Backends, Load } from '../backend.ts'
import type { FlowNode } from '../job.ts'
import * as check from '../check.ts'
import { errors } from '../errors.ts'
import type { JobOptions } from '../job-options.ts'
import type { Intake } from './add.ts'
import type { Control } from './control.ts'
import { Handle, type JobHandle } from './handle.ts'
import type { MadeJob } from './made.ts'
import type { Task, TaskName } from './task.ts'

/** Options of one job of a flow. */
export interface FlowOptions extends Omit<JobOptions, 'deduplication'> {
  /** Of a child: its parent starts also if it fails or is cancelled. @default false: then its parent fails */
  ignoreDependencyOnFailure?: boolean | undefined
}

/** A job, and those that have to end before it starts. */
export interface FlowJob {
  name: TaskName | Task
  payload?: unknown
  options?: FlowOptions | undefined
  children?: readonly FlowJob[] | undefined
}

/** The jobs of a flow, as they were given. */
export interface FlowHandle {
  job: JobHandle
  children: FlowHandle[]
}

/** Jobs of one flow. */
const MOST = 1_000
/** Levels of one flow. */
const DEEPEST = 100

const NODE_CHECKS: check.Checks = {
  name: (value) => typeof value === 'function' ? 'the name or the handle of a task' : undefined,
  payload: check.anything,
  options: (value) => check.entriesOf(value) === undefined ? 'an object of options' : undefined,
  children: (value) => check.isArray(value) ? undefined : 'an array of { name, payload, options, children }'
}
const OWN_CHECKS: check.Checks = { ignoreDependencyOnFailure: check.boolean }

interface MadeNode extends FlowNode {
  readonly job: MadeJob
  readonly children: MadeNode[]
}

export class Flows {
  readonly #intake: Intake
  readonly #control: Control
  readonly #backends: Backends

  constructor (intake: Intake, control: Control, backends: Backends) {
    this.#intake = intake
    this.#control = control
    this.#backends = backends
  }

  async add (flow: FlowJob, app: FastifyInstance): Promise<FlowHandle> {
    const jobs: MadeJob[] = []
    const root = this.#make(flow, 'flow', 1, jobs, app)
    const flows = this.#storeOf(jobs)
    const asked = new Map<string, Load>()
    for (const { queue, bytes } of jobs) {
      const sum = asked.get(queue)
      asked.set(queue, { jobs: (sum?.jobs ?? 0) + 1, bytes: (sum?.bytes ?? 0) + bytes })
    }
    this.#intake.reserve(asked)
    this.#intake.admitReserved(jobs)
    await this.#intake.storeFlow(flows, root, jobs)
    return this.#handleOf(root)
  }

  /** A parent comes before its children, in `jobs` as in the order of ids. */
  #make (flow: unknown, where: string, level: number, jobs: MadeJob[], app: FastifyInstance): MadeNode {
    if (level > DEEPEST) throw new errors.BadOption('flow', `at most ${DEEPEST} levels`, 'more')
    if (jobs.length === MOST) throw new errors.BadOption('flow', `at most ${MOST} jobs`, 'more')
    const { name, payload, options = {}, children = [] } = check.options<FlowJob>(where, NODE_CHECKS, flow)
    const { ignoreDependencyOnFailure = false, ...own } = options
    check.options(`${where}.options`, OWN_CHECKS, { ignoreDependencyOnFailure })
    const job = this.#intake.prepare(name, payload, own, app, null)
    if (job.policy.deduplication !== undefined) throw new errors.BadOption(`${where}.options.deduplication`, 'none in a flow', `that of task "${job.name}"`)
    jobs.push(job)
    return {
      job,
      ignored: ignoreDependencyOnFailure,
      children: Array.from(children, (child, at) => this.#make(child, `${where}.children[${at}]`, level + 1, jobs, app))
    }
  }

  /** @throws FST_BG_NOT_SUPPORTED */
  #storeOf (jobs: readonly MadeJob[]): NonNullable<Backend['flows']> {
    const stores = new Set(jobs.map(({ queue }) => this.#backends.of(queue, false)))
    const [backend] = stores as unknown as [Backend]
    if (stores.size > 1) throw new errors.NotSupported('flow() over queues on several backends', [...stores].map(({ name }) => name).join(', '))
    if (backend.flows === undefined) throw new errors.NotSupported('flow()', backend.name)
    return backend.flows
  }

  #handleOf ({ job, children }: MadeNode): FlowHandle {
    return { job: new Handle(this.#control, job), children: children.map((child) => this.#handleOf(child)) }
  }
}
