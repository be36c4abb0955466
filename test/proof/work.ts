/** A job of a sequence as the library is given it. */
import { RetryLaterError, UnrecoverableError, type JobOptions } from '../../lib/index.ts'
import { SETTINGS, type How, type Spec } from './plan.ts'
import { RETRY_AFTER } from './verdict.ts'

/** `staged`: what waits for its response is not told from others. */
export function optionsOf (spec: Spec, wall: number, staged = false): JobOptions {
  const { attempts, backoff, timeout, delay, runAt, ttl, priority, queue, when, onAbort, group, once } = spec
  return {
    attempts, timeout, ttl, priority, queue, onAbort,
    backoff: backoff >= 0 ? backoff : { type: 'exponential', delay: -backoff },
    retryIf: (error) => (error as { refused?: true }).refused !== true,
    when: when === 'below 400' ? ({ statusCode }) => statusCode < 400 : when === 'throws' ? () => { throw new Error('when') } : when,
    ...(group !== null && { group: { id: group } }),
    ...(once !== null && !staged && { deduplication: { id: once.id, ...(once.ttl > 0 && { ttl: once.ttl }) } }),
    ...(runAt === null ? { delay } : { runAt: wall + runAt })
  }
}

export function payloadOf (no: number, { pad }: Spec): { no: number, pad: string } {
  return { no, pad: 'x'.repeat(pad) }
}

/** What a body returns or throws. */
export function perform (how: How): unknown {
  switch (how) {
    case 'done': return { ok: true }
    case 'odd': return () => {}
    case 'huge': return 'x'.repeat(2 * SETTINGS.maxPayloadBytes)
    case 'throw': throw new Error('broken on purpose')
    case 'refused': throw Object.assign(new Error('never again'), { refused: true })
    case 'unrecoverable': throw new UnrecoverableError('never')
    case 'http': throw Object.assign(new Error('503'), { retryAfter: RETRY_AFTER })
    default: throw new RetryLaterError({ delay: how.later, countAttempt: how.counted })
  }
}
