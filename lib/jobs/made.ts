/** A job as it is made here. It is who it is from `admit` on: nobody else's code runs between that and the backend. */
import { systemClock } from '../clock.ts'
import { createIds } from '../id.ts'
import type { Carrier, Local, NewJob, Policy } from '../job.ts'
import type { Json } from '../json.ts'

/** One for the process: the ids of all its applications rise together. */
const ids = createIds()

/** So that instants are small integers, which cost no box of their own. */
const ORIGIN = systemClock.now()

export class MadeJob implements NewJob {
  readonly name: string
  payload: Json
  bytes: number
  readonly requestId: string | null
  policy: Policy
  local: Local | undefined
  #made = 0
  order = 0
  /** Made when somebody asks: an id costs as much as the rest of a job's making, and few are ever read. */
  #id: string | undefined

  constructor (name: string, payload: Json, bytes: number, policy: Policy, requestId: string | null, local: Local | undefined) {
    this.name = name
    this.payload = payload
    this.bytes = bytes
    this.policy = policy
    this.requestId = requestId
    this.local = local
  }

  get carrier (): Carrier | undefined { return undefined }
  get createdAt (): number { return ORIGIN + this.#made }
  get queue (): string { return this.policy.queue }

  get id (): string { return (this.#id ??= ids.text(this.order, Math.floor(this.createdAt))) }

  /** It was not added: another job is in its place, and who asks for this one means that one. */
  standFor (id: string): void {
    this.#id = id
  }

  /** `now`: ms of the wall clock. */
  admit (now: number): void {
    this.#made = Math.floor(now - ORIGIN)
    this.order = ids.count(now)
    // The clock went back, or ticks too slowly: the id must rise all the same.
    if (ids.stamp !== Math.floor(now)) this.#id = ids.text(this.order, ids.stamp)
  }
}

/** One with something that goes along. A class of its own: the others have no room for it. */
export class CarryingJob extends MadeJob {
  #carrier: Carrier | undefined

  override get carrier (): Carrier | undefined { return this.#carrier }

  carry (carrier: Carrier | undefined): void {
    this.#carrier = carrier
  }
}
