/** The replay of dead letters: how many at once, one ahead of the others, with a payload that was put right. */
import type { Backends } from '../backend.ts'
import { assertSupported } from '../capabilities.ts'
import * as check from '../check.ts'
import { errors } from '../errors.ts'
import type { JobRecord, JobState } from '../job.ts'
import { copyAsJson, type Copied, type Json } from '../json.ts'
import type { Observer } from '../observe.ts'
import type { Control } from './control.ts'
import type { DeadLetter } from './dead-letter-groups.ts'
import { takePayload, type Registry } from './registry.ts'
import type { Runner } from './runner.ts'

/** How dead letters are replayed. */
export interface DeadLetterRetryOptions {
  /** Only count, and check the `patch`. @default false */
  dryRun?: boolean | undefined
  /** Starts this many a second, above 0, at most 1 000 000. @default all at once */
  ratePerSecond?: number | undefined
  /** The oldest goes ahead; the others follow when it has completed, and stay dead letters otherwise. @default false */
  canary?: boolean | undefined
  /** Ms to wait for it, at most 600 000. @default 60000 */
  canaryTimeout?: number | undefined
  /**
   * Laid over each payload as a JSON Merge Patch (RFC 7396): members replace, `null` removes. The payloads must fit the
   * schemas of their tasks, all of them, or none is retried. Without it payloads stay as they are.
   */
  patch?: Record<string, unknown> | undefined
}

/** The dead letter that was sent ahead of the others. */
export interface Canary {
  id: string
  /** `completed`: the others followed. Not final: it took longer than `canaryTimeout`. */
  state: JobState
}

/** `matched` were meant, `done` were done. Counts of jobs. */
export interface DeadLetterAnswer {
  matched: number
  done: number
  /** The first, where one was sent ahead. Unless it `completed`, the others stay where they are. */
  canary?: Canary
}

export interface ReplayParts {
  readonly backends: Backends
  readonly control: Control
  readonly registry: Registry
  readonly runner: Runner
  readonly observer: Observer
  readonly maxPayloadBytes: number
}

export const REPLAY: check.Checks = {
  dryRun: check.boolean,
  ratePerSecond: (value) => typeof value === 'number' && value > 0 && value <= 1e6 ? undefined : 'a number above 0, at most 1000000',
  canary: check.boolean,
  canaryTimeout: check.integer(1, 600_000),
  patch: (value) => check.entriesOf(value) !== undefined ? undefined : 'an object, a JSON Merge Patch'
}

const CANARY_TIMEOUT = 60_000

export class Replay {
  readonly parts: ReplayParts
  readonly #closing = new AbortController()

  constructor (parts: ReplayParts) {
    this.parts = parts
  }

  get closing (): AbortSignal { return this.#closing.signal }

  plan (options: DeadLetterRetryOptions): Plan {
    return new Plan(this, options)
  }

  close (): void {
    this.#closing.abort()
  }
}

/** What is kept of a dead letter until it is its turn. */
type Meant = Pick<JobRecord, 'id' | 'name' | 'queue' | 'requestId'>

/** One replay. First all are added, and nothing has changed; then it runs. */
class Plan {
  readonly #replay: Replay
  readonly #options: DeadLetterRetryOptions
  readonly #free: Meant[] = []
  readonly #patch: Json | undefined
  readonly #payloads: Map<string, Copied> | undefined
  #matched = 0

  constructor (replay: Replay, options: DeadLetterRetryOptions) {
    this.#replay = replay
    this.#options = options
    if (options.patch === undefined) return
    this.#patch = copyPatch(options.patch)
    this.#payloads = new Map()
  }

  /** Whose last body is still alive: two attempts of one job never overlap, not even after one was given up. */
  get blocked (): number { return this.#matched - this.#free.length }

  /** @throws FST_BG_BAD_PAYLOAD, FST_BG_PAYLOAD_TOO_LARGE, FST_BG_UNKNOWN_TASK, FST_BG_NOT_SUPPORTED */
  add ({ id, name, queue, requestId, payload }: DeadLetter): void {
    const { backends, registry, maxPayloadBytes, runner } = this.#replay.parts
    if (this.#patch !== undefined) {
      assertSupported(backends.of(queue, false), 'patch', 'retrying with another payload')
      this.#payloads?.set(id, takePayload(registry.get(name), mergePatch(payload, this.#patch), maxPayloadBytes))
    }
    this.#matched++
    if (!runner.lives(id)) this.#free.push({ id, name, queue, requestId })
  }

  async run (): Promise<DeadLetterAnswer> {
    const { dryRun = false, canary = false, ratePerSecond } = this.#options
    const answer: DeadLetterAnswer = { matched: this.#matched, done: 0 }
    if (dryRun) return answer
    const jobs = [...this.#free]
    if (canary) {
      const first = await this.#sendAhead(jobs)
      if (first === undefined) return answer
      answer.done = 1
      answer.canary = { id: first.id, state: await this.#endOf(first.id) }
      if (answer.canary.state !== 'completed') return answer
    }
    answer.done += await this.#retry(jobs, ratePerSecond === undefined ? 0 : 1_000 / ratePerSecond)
    return answer
  }

  async #retry (jobs: readonly Meant[], spacing: number): Promise<number> {
    const { backends, observer } = this.#replay.parts
    const done = await backends.all.retry(jobs.map(({ id }) => id), spacing, this.#payloads)
    observer.replayed(done === jobs.length ? jobs : await this.#revived(jobs))
    return done
  }

  /** Where some were refused: those that are dead letters no more. */
  async #revived (jobs: readonly Meant[]): Promise<Meant[]> {
    const revived: Meant[] = []
    for (const job of jobs) if ((await this.#replay.parts.control.get(job.id))?.state !== 'failed') revived.push(job)
    return revived
  }

  /** The first that can be retried, taken from the others. */
  async #sendAhead (jobs: Meant[]): Promise<Meant | undefined> {
    for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) {
      if (await this.#retry([job], 0) === 1) return job
    }
    return undefined
  }

  /** Its state when it has ended, or when nobody waits any longer. */
  async #endOf (id: string): Promise<JobState> {
    const { control } = this.#replay.parts
    const { canaryTimeout = CANARY_TIMEOUT } = this.#options
    const record = await control.untilFinal(id, canaryTimeout, this.#replay.closing).catch(() => control.get(id))
    // No longer kept: how it ended cannot be told.
    return record?.state ?? 'waiting'
  }
}

/** @throws FST_BG_BAD_OPTION */
function copyPatch (patch: unknown): Json {
  try {
    const copied = copyAsJson(patch)?.value
    if (copied !== undefined && isObject(copied)) return copied
  } catch { /* cycles, BigInt, too deep */ }
  throw new errors.BadOption('deadLetters.retry options.patch', 'an object of JSON values', 'one without a JSON form')
}

/** RFC 7396. Members are defined, not assigned: `__proto__` from a JSON text is an own key and stays one. */
function mergePatch (target: Json, patch: Json): Json {
  if (!isObject(patch)) return patch
  const merged = new Map(Object.entries(isObject(target) ? target : {}))
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) merged.delete(key)
    else merged.set(key, mergePatch(merged.get(key) ?? null, value))
  }
  return Object.fromEntries(merged)
}

function isObject (value: Json): value is { [key: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
