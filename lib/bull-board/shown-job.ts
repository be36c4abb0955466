/** A job as bull-board shows and steers it. */
import type { JobState as ShownState, QueueJob, QueueJobJson } from '@bull-board/api/typings/app'
import type { Background } from '../background.ts'
import { errors } from '../errors.ts'
import { isFinal, type JobRecord } from '../job.ts'

export class ShownJob implements QueueJob {
  readonly #job: JobRecord
  readonly #background: Background
  readonly #hidden: boolean
  readonly opts: { delay?: number | undefined }

  /** `redact` changes the record; without it, the payload is not shown. */
  constructor (job: JobRecord, background: Background, redact: ((job: JobRecord) => void) | undefined) {
    redact?.(job)
    this.#job = job
    this.#background = background
    this.#hidden = redact === undefined
    this.opts = { delay: delayOf(job) }
  }

  async getState (): Promise<ShownState> {
    const { state } = await this.#background.get(this.#job.id) ?? this.#job
    return state === 'cancelled' ? 'completed' : state === 'pending' ? 'waiting' : state
  }

  /** @throws FST_BG_NOT_RETRYABLE */
  async retry (): Promise<void> { await this.#background.deadLetters.retry(this.#job.id) }

  async promote (): Promise<void> { await this.#background.promote(this.#job.id) }

  /** Forgets it, or cancels it where it has not started. */
  async remove (): Promise<void> {
    const { id, state } = this.#job
    if (isFinal(state)) await this.#background.remove(id)
    else if (state === 'active') throw new errors.NotSupported('removing an active job', 'page')
    else await this.#background.cancel(id, 'removed on the page')
  }

  toJSON (): QueueJobJson {
    const { id, name, progress, attemptsMade, attempts, priority, requestId, payload, result, history = [] } = this.#job
    const epoch = (instant: string | null): number | null => instant === null ? null : Date.parse(instant)
    const delay = delayOf(this.#job)
    return {
      id,
      name,
      progress: progress ?? 0,
      attemptsMade,
      timestamp: Date.parse(this.#job.createdAt),
      processedOn: epoch(this.#job.startedAt),
      finishedOn: epoch(this.#job.finishedAt),
      delay,
      priority,
      failedReason: reasonOf(this.#job),
      stacktrace: history.map(({ error }) => error.stack ?? `${error.name}: ${error.message}`),
      data: this.#hidden ? 'hidden: see the option redact' : payload,
      returnvalue: result ?? null,
      opts: { attempts, delay, priority, requestId }
    }
  }
}

/** What is known of its life, a line for each event. */
export function tellLog ({ createdAt, startedAt, finishedAt, state, attemptsMade, history = [], overdue, requestId, ...job }: JobRecord): string[] {
  const lines = [`${createdAt} made${requestId === null ? '' : ` by request ${requestId}`}`]
  for (const { attempt, endedAt, error } of history) lines.push(`${endedAt} attempt ${attempt} failed: ${error.name}: ${error.message}`)
  if (startedAt !== null && !(isFinal(state) && history.at(-1)?.attempt === attemptsMade)) lines.push(`${startedAt} attempt ${attemptsMade} started`)
  if (overdue === true) lines.push('its timeout is over, its body has not settled')
  if (finishedAt !== null) lines.push(`${finishedAt} ${state}${job.failure === undefined ? '' : `: ${job.failure}`}${job.reason === undefined ? '' : `: ${job.reason}`}`)
  return lines
}

function reasonOf ({ state, error, failure, reason }: JobRecord): string {
  if (state === 'cancelled') return `cancelled: ${reason ?? 'user'}`
  if (state !== 'failed' && state !== 'delayed') return ''
  return error === undefined ? failure ?? '' : `${error.name}: ${error.message}`
}

/** Ms from its making. */
function delayOf ({ createdAt, runAt, retryAt }: JobRecord): number {
  const due = runAt ?? retryAt
  return due === undefined ? 0 : Math.max(0, Date.parse(due) - Date.parse(createdAt))
}
