/** Many jobs in one call: made in slices and stored in chunks, so that the event loop turns in between. */
import type { FastifyInstance } from 'fastify'
import type { Load } from '../backend.ts'
import * as check from '../check.ts'
import type { Clock } from '../clock.ts'
import { errors } from '../errors.ts'
import type { JobOptions } from '../job-options.ts'
import type { Intake } from './add.ts'
import type { Control } from './control.ts'
import { Handle, type JobHandle } from './handle.ts'
import type { MadeJob } from './made.ts'
import type { Task, TaskName } from './task.ts'

/** One job of `addBulk`. */
export interface BulkJob {
  name: TaskName | Task
  payload?: unknown
  options?: JobOptions
}

const BULK_CHECKS: check.Checks = { name: check.anything, payload: check.anything, options: check.anything }

/** Ms in which jobs are made, or handed to a backend that answers at once, before the loop turns. */
const SLICE = 5
/** Jobs in one call to the backend. A durable one blocks the loop for some ms to write so many. */
const CHUNK = 100

export class Bulk {
  readonly #intake: Intake
  readonly #control: Control
  readonly #clock: Clock

  constructor (intake: Intake, control: Control, clock: Clock) {
    this.#intake = intake
    this.#control = control
    this.#clock = clock
  }

  async add (jobs: readonly BulkJob[], app: FastifyInstance): Promise<JobHandle[]> {
    if (!check.isArray(jobs)) throw new errors.BadOption('addBulk(jobs)', 'an array of { name, payload, options }', check.came(jobs))
    const slice = new Slice(this.#clock)
    const made: MadeJob[] = []
    const asked = new Map<string, Load>()
    for (const [at, job] of readAll(jobs).entries()) {
      const { name, payload, options } = check.options<BulkJob>(`addBulk(jobs)[${at}]`, BULK_CHECKS, job)
      const one = this.#intake.prepare(name, payload, options, app, null)
      made.push(one)
      count(asked, one)
      if (slice.over) await slice.next()
    }
    this.#intake.reserve(asked)
    return this.#store(made, slice)
  }

  async #store (made: readonly MadeJob[], slice: Slice): Promise<JobHandle[]> {
    const stored: JobHandle[] = []
    let first = 0
    try {
      while (first < made.length) {
        const chunk = made.slice(first, first + CHUNK)
        this.#intake.admitReserved(chunk)
        first += chunk.length
        const storing = this.#intake.store(chunk, false)
        if (storing !== undefined) await storing
        for (const job of chunk) stored.push(new Handle(this.#control, job))
        if (slice.over) await slice.next()
      }
    } catch (error) {
      this.#intake.unreserve(made.slice(first))
      throw Object.assign(error as Error, { stored })
    }
    return stored
  }
}

class Slice {
  readonly #clock: Clock
  #began: number

  constructor (clock: Clock) {
    this.#clock = clock
    this.#began = clock.monotonic()
  }

  get over (): boolean { return this.#clock.monotonic() - this.#began > SLICE }

  next (): Promise<void> {
    return new Promise((resolve) => {
      this.#clock.soon(() => {
        this.#began = this.#clock.monotonic()
        resolve()
      })
    })
  }
}

function count (asked: Map<string, Load>, { queue, bytes }: MadeJob): void {
  const sum = asked.get(queue)
  if (sum === undefined) asked.set(queue, { jobs: 1, bytes })
  else {
    sum.jobs++
    sum.bytes += bytes
  }
}

/** A copy without holes: those of a sparse array are `undefined` in it. */
function readAll (jobs: readonly unknown[]): unknown[] {
  try {
    return Array.from(jobs)
  } catch {
    throw new errors.BadOption('addBulk(jobs)', 'an array of { name, payload, options }', 'an array that cannot be read')
  }
}
