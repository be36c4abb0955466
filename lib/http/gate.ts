/**
 * "The response is over": once for each response, however it ended. Then the jobs it staged are judged by `when` and
 * `onAbort`, and released or cancelled, in a later turn of the loop.
 *
 * A hold is `open` until the first of: the raw response's `finish` or `close`, the HTTP/2 stream's `close`, the close
 * of the socket a pipelined response still waits for, or `maxHold`. If the client left before headers were sent it is
 * `abandoned`: the handler goes on, and its own end is waited for. Then it is `over`, for good: what is staged later
 * is judged by the same end.
 */
import type { Socket } from 'node:net'
import type { FastifyReply } from 'fastify'
import type { Backend } from '../backend.ts'
import type { Clock } from '../clock.ts'
import { Deadlines, type Deadline } from '../deadlines.ts'
import type { CancelReason, NewJob } from '../job.ts'
import type { Observer } from '../observe.ts'
import { afterHandler, isComplete, isGone, isHttp2, leftEarly, type RawResponse } from './response.ts'
import { accepts, refusal, type ResponseEnd } from './when.ts'

type HeldResponse = RawResponse & { [HOLD]?: Hold | undefined }

const HOLD = Symbol('fastify-background-tasks.hold')

class Hold implements Deadline {
  readonly gate: Gate
  /** Let go when the response is over: a reply keeps its request and body alive. */
  reply: FastifyReply | undefined
  state: 'open' | 'abandoned' | 'over' = 'open'
  staged: NewJob[] = []
  /** Others that wait for the end. */
  listeners: Array<(end: ResponseEnd) => void> = []
  failed = false
  error: unknown
  end: ResponseEnd | undefined
  /** Whether the ends of the response are listened to. */
  watched = false
  /** The responses that wait for the same connection, while this one does. */
  queued: Set<Hold> | undefined
  /** Stops waiting for the handler, whose client has left. */
  giveUp: (() => void) | undefined
  /** Of another application that answers into the same response. */
  readonly next: Hold | undefined
  due = 0
  place = -1

  constructor (gate: Gate, reply: FastifyReply, next: Hold | undefined) {
    this.gate = gate
    this.next = next
    this.reply = reply
  }
}

/** Responses that wait for their turn on a pipelined connection, by socket: one listener for all of them. */
const queuedOn = new WeakMap<Socket, Set<Hold>>()

export class Gate {
  readonly #backend: Backend
  readonly #clock: Clock
  readonly #observer: Observer
  readonly #maxHold: number
  readonly #deadlines: Deadlines<Hold>
  /** Holds that got over in this turn. */
  #over: Hold[] = []
  /** How many responses that are not over hold a job, where it stands for duplicates. */
  readonly #shares = new Map<string, number>()

  constructor (backend: Backend, clock: Clock, observer: Observer, maxHold: number) {
    this.#backend = backend
    this.#clock = clock
    this.#observer = observer
    this.#maxHold = maxHold
    this.#deadlines = new Deadlines(clock, (hold) => this.#holdTooLong(hold))
  }

  /** The reply's handler, or a hook before the reply, threw or sent an error. For the `onError` hook. */
  failed (reply: FastifyReply, error: unknown): void {
    if (reply.raw.headersSent) return // broken in mid-stream: aborted, not an error
    const hold = this.#holdOf(reply)
    if (hold.state === 'over') return // by maxHold: what is staged later gets the same end
    hold.failed = true
    hold.error = error
  }

  /** The job, already pending in the backend, starts when the reply's response is over. */
  stage (reply: FastifyReply, job: NewJob): void {
    const hold = this.#holdOf(reply)
    this.share(job)
    hold.staged.push(job)
    if (hold.state === 'over') this.#soon(hold)
    else if (!hold.watched) this.#watch(hold, reply)
  }

  /** Calls the listener with the end of the reply's response, in the turn in which its jobs start. */
  whenOver (reply: FastifyReply, listener: (end: ResponseEnd) => void): void {
    const hold = this.#holdOf(reply)
    hold.listeners.push(listener)
    if (hold.state === 'over') this.#soon(hold)
    else if (!hold.watched) this.#watch(hold, reply)
  }

  /** A job that others are told of instead of their own may be held by several responses: the last that refuses it cancels it. */
  share (job: NewJob): void {
    if (job.policy.deduplication !== undefined) this.#shares.set(job.id, (this.#shares.get(job.id) ?? 0) + 1)
  }

  /** One of the responses is over. Answers whether another one still holds the job. */
  unshare (job: NewJob): boolean {
    if (job.policy.deduplication === undefined) return false
    const others = (this.#shares.get(job.id) ?? 1) - 1
    if (others > 0) this.#shares.set(job.id, others)
    else this.#shares.delete(job.id)
    return others > 0
  }

  /** The reply as it would end if nothing more came. */
  endSoFar (reply: FastifyReply): ResponseEnd {
    const { failed, error, state } = this.#holdOf(reply)
    return { failed, statusCode: reply.raw.statusCode, error, aborted: state === 'abandoned' }
  }

  /** Whether the client has left, or the response is over: nobody waits for an answer. */
  hasLeft (reply: FastifyReply): boolean {
    return this.#holdOf(reply).state !== 'open' || isGone(reply)
  }

  close (): void {
    this.#deadlines.close()
  }

  #holdOf (reply: FastifyReply): Hold {
    const raw = reply.raw as HeldResponse
    for (let hold = raw[HOLD]; hold !== undefined; hold = hold.next) if (hold.gate === this) return hold
    return (raw[HOLD] = new Hold(this, reply, raw[HOLD]))
  }

  #watch (hold: Hold, reply: FastifyReply): void {
    hold.watched = true
    const raw = reply.raw as HeldResponse
    if (isGone(reply)) return this.#clientGone(hold)
    raw.on('finish', onFinish)
    raw.on('close', onClose)
    if (isHttp2(raw)) raw.stream.once('close', () => { onClose.call(raw) })
    else if (raw.socket === null) waitBehind(reply.request.raw.socket, hold)
    this.#deadlines.set(hold, this.#clock.monotonic() + this.#maxHold)
  }

  finished (hold: Hold): void {
    if (hold.state !== 'open') return
    // On a reset HTTP/2 stream `finish` comes although nothing was sent.
    const raw = hold.reply?.raw as HeldResponse
    if (raw.headersSent) this.#end(hold, isHttp2(raw) && (raw.stream.aborted || !raw.writableFinished))
    else this.#clientGone(hold)
  }

  /** The connection is gone before the response was complete. */
  closed (hold: Hold): void {
    if (hold.state === 'open') this.#clientGone(hold)
  }

  #clientGone (hold: Hold): void {
    const reply = hold.reply as FastifyReply
    const { raw } = reply
    const hijacked = reply.sent && !raw.writableEnded
    if (raw.headersSent || raw.writableEnded || hijacked) return this.#end(hold, !isComplete(raw) || !raw.headersSent || leftEarly(reply))
    hold.state = 'abandoned'
    unlisten(raw)
    hold.giveUp = afterHandler(raw, () => { this.#end(hold, true) })
    if (hold.place === -1) this.#deadlines.set(hold, this.#clock.monotonic() + this.#maxHold)
  }

  #holdTooLong (hold: Hold): void {
    this.#observer.held(hold.reply?.request.id ?? '', hold.staged.length, this.#maxHold)
    this.#end(hold, hold.state === 'abandoned')
  }

  #end (hold: Hold, aborted: boolean): void {
    if (hold.state === 'over') return
    const { raw } = hold.reply as FastifyReply
    hold.state = 'over'
    hold.end = { failed: hold.failed, statusCode: raw.statusCode, error: hold.error, aborted }
    hold.reply = undefined
    hold.queued?.delete(hold)
    hold.giveUp?.()
    this.#deadlines.delete(hold)
    unlisten(raw)
    this.#soon(hold)
  }

  /** One hop for all that get over in this turn; started here, a job would delay the bytes of an HTTP/2 answer. */
  #soon (hold: Hold): void {
    this.#over.push(hold)
    if (this.#over.length > 1) return
    this.#clock.soon(() => {
      const over = this.#over
      this.#over = []
      this.#judge(over)
    })
  }

  #judge (over: readonly Hold[]): void {
    const released: string[] = []
    for (const hold of over) {
      const { staged, listeners } = hold
      const end = hold.end as ResponseEnd
      hold.staged = []
      hold.listeners = []
      for (const job of staged) {
        const reason = refusal(job, accepts(job, end, this.#observer), end.aborted)
        const isShared = this.unshare(job) || (job.policy.deduplication !== undefined && released.includes(job.id))
        if (reason === undefined) released.push(job.id)
        else if (!isShared) this.#observer.guard('cancel a job', () => cancelPending(this.#backend, job, reason, this.#observer))
      }
      for (const listener of listeners) listener(end)
    }
    if (released.length > 0) this.#observer.guard('release jobs', () => this.#backend.release(released))
  }
}

export async function cancelPending (backend: Backend, job: NewJob, reason: CancelReason, observer: Observer): Promise<void> {
  // It may have expired meanwhile, and somebody may have retried it: then it is no longer ours.
  if ((await backend.get(job.id))?.state !== 'pending') return
  if (await backend.cancel(job.id, reason, 'its response did not end as it asked') === 'cancelled') observer.cancelled(job, reason)
}

// The listeners are shared by all responses: `this` leads to the hold.

function onFinish (this: HeldResponse): void {
  for (let hold = this[HOLD]; hold !== undefined; hold = hold.next) hold.gate.finished(hold)
}

function onClose (this: HeldResponse): void {
  for (let hold = this[HOLD]; hold !== undefined; hold = hold.next) hold.gate.closed(hold)
}

function unlisten (raw: HeldResponse): void {
  raw.removeListener('finish', onFinish)
  raw.removeListener('close', onClose)
}

/** The response has no socket of its own yet, and hears nothing when the connection closes. */
function waitBehind (socket: Socket, hold: Hold): void {
  let queued = queuedOn.get(socket)
  if (queued === undefined) {
    const holds = new Set<Hold>()
    queued = holds
    queuedOn.set(socket, holds)
    socket.once('close', () => {
      for (const waiting of holds) waiting.gate.closed(waiting)
    })
  }
  queued.add(hold)
  hold.queued = queued
}
