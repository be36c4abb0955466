/** The context of an attempt. Nothing in it is made before it is asked for. */
import type { FastifyBaseLogger, FastifyInstance } from 'fastify'
import { came } from '../check.ts'
import type { Clock } from '../clock.ts'
import { errors, type JobAbortedError } from '../errors.ts'
import { iso, type Attempt, type ChildRecord, type JobContext, type JobFacts } from '../job.ts'
import { copyAsJson, type Copied, type Json } from '../json.ts'
import { limitLog, type JobLog } from './job-log.ts'
import { ProgressFlow } from './progress.ts'

/** What the running attempt lends to its context. */
export interface Stage {
  readonly attempt: Attempt
  readonly app: FastifyInstance
  readonly maxBytes: number
  readonly clock: Clock
  readonly reason: JobAbortedError | undefined
  note (value: Json): void
  give (): Promise<void>
}

const NONE: readonly ChildRecord[] = Object.freeze([])

/** Passes the stage's abort on to the signal, if anybody took it. No method: a body could put another in its place. */
export let abortSignalOf: (context: AttemptContext) => void
/** The body has ended: what it had told of itself and was held back goes out. */
export let flushContext: (context: AttemptContext) => void

export class AttemptContext implements JobContext {
  static {
    flushContext = (context) => {
      context.#progress?.end()
      context.#log?.end()
    }
    abortSignalOf = (context) => {
      const { reason } = context.#stage
      if (reason === undefined) return
      try {
        context.#controller?.abort(reason)
      } catch { /* a body that froze its signal hears nothing; its end is judged like any other */ }
    }
  }

  readonly #stage: Stage
  #controller: AbortController | undefined
  #job: JobFacts | undefined
  #log: JobLog | undefined
  #progress: ProgressFlow | undefined

  constructor (stage: Stage) {
    this.#stage = stage
  }

  get app (): FastifyInstance { return this.#stage.app }

  get job (): JobFacts { return (this.#job ??= factsOf(this.#stage.attempt)) }

  get log (): FastifyBaseLogger {
    const { attempt: { job, number } } = this.#stage
    this.#log ??= limitLog(this.app.log.child({ jobId: job.id, task: job.name, attempt: number, reqId: job.requestId ?? undefined }), this.#stage.clock)
    return this.#log.log
  }

  get children (): readonly ChildRecord[] { return this.#stage.attempt.children ?? NONE }

  get signal (): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      abortSignalOf(this)
    }
    return this.#controller.signal
  }

  get progress (): (value: unknown) => void {
    const stage = this.#stage
    const flow = (this.#progress ??= new ProgressFlow(stage.clock, (value) => { stage.note(value) }))
    return (value) => { flow.note(takeProgress(value, stage.maxBytes)) }
  }

  get yieldNow (): () => Promise<void> {
    const stage = this.#stage
    return () => stage.give()
  }
}

export function factsOf (attempt: Pick<Attempt, 'job' | 'number'>): JobFacts {
  const { job, number } = attempt
  return Object.freeze({
    id: job.id, name: job.name, queue: job.queue, attempt: number, attempts: job.policy.attempts, createdAt: iso(job.createdAt), requestId: job.requestId
  })
}

/** @throws FST_BG_BAD_OPTION */
export function takeProgress (value: unknown, maxBytes: number): Json {
  const copied = asProgress(value)
  if (copied !== undefined && copied.bytes <= maxBytes) return copied.value
  throw new errors.BadOption('progress', `a value with a JSON form of at most ${maxBytes} bytes`, copied === undefined ? came(value) : `${copied.bytes} bytes`)
}

function asProgress (value: unknown): Copied | undefined {
  try {
    return copyAsJson(value)
  } catch {
    return undefined
  }
}
