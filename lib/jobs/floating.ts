/**
 * What a job lets go of and then fails: a promise that nobody handles, a callback that throws. Node tells such errors
 * to the process alone; here each is logged under the job it came from. Nothing is swallowed: what becomes of the
 * process is decided as if this file did not exist.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import { systemClock } from '../clock.ts'
import { describe } from '../describe.ts'
import type { Attempt } from '../job.ts'
import type { Observer } from '../observe.ts'

/** Small on purpose: whatever a job creates and leaves behind, like the socket of a pool, keeps it alive. */
export interface Origin {
  readonly id: string
  readonly name: string
  readonly queue: string
  readonly requestId: string | null
  readonly attempt: number
  readonly observer: Observer
}

const REJECTION = 'unhandledRejection'
const EXCEPTION = 'uncaughtExceptionMonitor'
const OURS = Symbol.for('fastify-background-tasks.floating')
const origins = new AsyncLocalStorage<Origin | undefined>()
let listening = 0

/**
 * Runs a part of the attempt's work. Where nobody hears what would be told, nothing is followed: on Node 20 and 22 that
 * costs every promise of the process something.
 */
export function asWorkOf<A, B, T> ({ job, number }: Attempt, observer: Observer, work: (a: A, b: B) => T, a: A, b: B): T {
  if (!observer.followsFloating) return work(a, b)
  const { id, name, queue, requestId } = job
  return origins.run({ id, name, queue, requestId, attempt: number, observer }, work, a, b)
}

/** Answers how to stop; with the last one the listeners are gone. */
export function listen (): () => void {
  // First of all: one that listens once is still there then.
  if (listening++ === 0) process.prependListener(REJECTION, onRejection).on(EXCEPTION, onException)
  return () => { if (--listening === 0) process.off(REJECTION, onRejection).off(EXCEPTION, onException) }
}

const onRejection = Object.assign((reason: unknown): void => {
  tell(reason, 'rejection')
  // Our listener alone would keep Node from doing what it is set to do: so it gets the rejection again, without us.
  if (!process.listeners(REJECTION).every((listener) => OURS in listener)) return
  process.off(REJECTION, onRejection)
  void Promise.reject(reason)
  systemClock.soon(() => {
    if (listening > 0 && !process.listeners(REJECTION).includes(onRejection)) process.prependListener(REJECTION, onRejection)
  })
}, { [OURS]: true })

function onException (error: unknown, from: string): void {
  if (from === 'uncaughtException') tell(error, 'exception')
}

function tell (thrown: unknown, kind: 'rejection' | 'exception'): void {
  const origin = origins.getStore()
  if (origin === undefined) return
  // Outside of the job: what a subscriber throws here would come back as the job's own, again and again.
  origins.run(undefined, () => { origin.observer.floating(origin, kind, describe(thrown)) })
}
