/**
 * Tasks that run in threads. To the runner their body is a function like any other; it settles at once when its
 * signal aborts, because the thread is ended then. A body that took its signal in the thread may first end by itself.
 */
import { AsyncResource } from 'node:async_hooks'
import { statSync } from 'node:fs'
import { isAbsolute } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { MessageChannel, receiveMessageOnPort, type MessagePort } from 'node:worker_threads'
import { came } from '../check.ts'
import type { Clock, Timer } from '../clock.ts'
import { copyFacts, describe, peek, type ErrorFacts } from '../describe.ts'
import { errors, type JobAbortedError } from '../errors.ts'
import type { JobContext } from '../job.ts'
import type { Json } from '../json.ts'
import type { Observer } from '../observe.ts'
import type { Settings } from '../options.ts'
import { importPeer } from '../peer.ts'
import { LeftOut } from './result.ts'
import type { Abort, Ended, Errand, Said } from './thread-entry.ts'
import { toError } from './thread-error.ts'

export type TaskBody = (payload: Json, context: JobContext) => unknown

/** The part of Piscina that is used here. */
interface ThreadPool {
  run (errand: Errand, options: { filename: string, transferList: MessagePort[], signal: AbortSignal }): Promise<unknown>
  on (event: 'error', listener: (error: unknown) => void): unknown
  destroy (): Promise<void>
}

/** Its neighbour, whether compiled or not. */
const ENTRY = fileURLToPath(import.meta.url.replace(/threads(\.\w+)$/, 'thread-entry$1'))
/** Ms. A thread takes a tenth of a second to start: one that just became idle is kept for the next job. */
const IDLE = 10_000

export class Threads {
  readonly #settings: Settings
  readonly #clock: Clock
  readonly #observer: Observer
  #needed = false
  #pool: ThreadPool | undefined
  /** Threads outlive the jobs that cause them, and must not hold on to their async contexts. */
  readonly #scope = new AsyncResource('BackgroundThreads')
  #free: number
  /**
   * Attempts that wait for a thread, oldest first. They wait here and not in Piscina, which leaves its queue alone
   * when a thread is ended.
   */
  readonly #waiting: Array<() => void> = []
  /** Until the threads of these have hung up: one that was ended needs a moment. */
  readonly #lines = new Set<Promise<void>>()

  constructor (settings: Settings, clock: Clock, observer: Observer) {
    this.#settings = settings
    this.#clock = clock
    this.#observer = observer
    this.#free = settings.threads
  }

  bodyOf (file: string): TaskBody {
    this.#needed = true
    return async (payload, context) => {
      await this.#enter(context.signal)
      try {
        return await this.#run(file, payload, context)
      } finally {
        this.#leave()
      }
    }
  }

  /** @throws FST_BG_PEER_MISSING */
  async open (): Promise<void> {
    if (!this.#needed) return
    const { Piscina } = await importPeer('a task with a worker', 'piscina', () => import('piscina'))
    this.#scope.runInAsyncScope(() => {
      this.#pool = new Piscina({ minThreads: 0, maxThreads: this.#settings.threads, idleTimeout: IDLE, recordTiming: false }) as ThreadPool
      this.#pool.on('error', (error) => { this.#observer.threadFailed(describe(error)) })
    })
  }

  /** Resolves when the threads are gone. Their jobs have ended before. */
  async close (): Promise<void> {
    await this.#pool?.destroy()
    await Promise.all(this.#lines)
    this.#scope.emitDestroy()
  }

  /** Resolves when a thread is free. */
  async #enter (signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.#free > 0) {
      this.#free--
      return
    }
    await new Promise<void>((resolve, reject) => {
      const giveUp = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(start), 1)
        reject(signal.reason as JobAbortedError)
      }
      const start = (): void => {
        signal.removeEventListener('abort', giveUp)
        resolve()
      }
      signal.addEventListener('abort', giveUp, { once: true })
      this.#waiting.push(start)
    })
  }

  #leave (): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#free++
    else next()
  }

  async #run (file: string, payload: Json, context: JobContext): Promise<unknown> {
    const { signal, job, children, log } = context
    signal.throwIfAborted() // while it was its turn
    const { port1, port2 } = new MessageChannel()
    const line = new Line(context, port1, this.#clock, this.#settings.abortGrace / 2)
    this.#lines.add(line.over)
    void line.over.then(() => { this.#lines.delete(line.over) })
    const errand: Errand = { file, payload, job: { ...job }, children, maxBytes: this.#settings.maxPayloadBytes, level: log.level, port: port2 }
    try {
      const run = (): Promise<unknown> => (this.#pool as ThreadPool).run(errand, { filename: ENTRY, transferList: [port2], signal: line.end.signal })
      const { threw, result, resultOmitted } = await this.#scope.runInAsyncScope(run).catch(died) as Ended
      line.hearAll()
      port1.close()
      if (threw !== undefined) throw toError(threw)
      return resultOmitted === undefined ? result : new LeftOut(resultOmitted)
    } catch (error) {
      line.hearAll()
      port2.close() // as long as it has not gone into the thread, whose end closes it
      throw line.fault ?? error
    } finally {
      line.letGo()
    }
  }
}

function died (cause: unknown): never {
  throw Object.assign(new errors.ThreadEnded(describe(cause).message), { cause })
}

/** Between an attempt and its thread: what the thread says goes up, an abort goes down. */
class Line {
  readonly #context: JobContext
  readonly #port: MessagePort
  readonly #clock: Clock
  readonly #grace: number
  readonly #abort = (): void => { this.#passOn() }
  #timer: Timer | undefined
  #listens = false
  /** Ends the thread. */
  readonly end = new AbortController()
  /** Resolves when the port has closed. */
  readonly over: Promise<void>
  /** What the logger threw. */
  fault: unknown

  constructor (context: JobContext, port: MessagePort, clock: Clock, grace: number) {
    this.#context = context
    this.#port = port
    this.#clock = clock
    this.#grace = grace
    port.on('message', (said: Said) => { this.#hear(said) })
    this.over = new Promise((resolve) => { port.once('close', resolve) })
    context.signal.addEventListener('abort', this.#abort, { once: true })
  }

  /** What was said just before the end, and has not come up yet. */
  hearAll (): void {
    for (let next = receiveMessageOnPort(this.#port); next !== undefined; next = receiveMessageOnPort(this.#port)) this.#hear(next.message as Said)
  }

  letGo (): void {
    this.#context.signal.removeEventListener('abort', this.#abort)
    if (this.#timer !== undefined) this.#clock.clearTimer(this.#timer)
  }

  #passOn (): void {
    if (!this.#listens) {
      this.end.abort()
      return
    }
    const { reason, message } = this.#context.signal.reason as JobAbortedError
    this.#port.postMessage({ kind: reason, detail: message } satisfies Abort)
    this.#timer = this.#clock.setTimer(() => { this.end.abort() }, this.#grace)
  }

  #hear (said: Said): void {
    try {
      switch (said.kind) {
        case 'progress': return this.#context.progress(said.value)
        case 'log': return this.#context.log[said.level](...dressed(said.values) as [object, string])
        case 'listens': this.#listens = true
      }
    } catch (error) {
      this.fault = error
      this.end.abort()
    }
  }
}

/** A described error has no constructor, see `describe`; a structured clone gave it one. */
function dressed ([first, ...rest]: Json[]): unknown[] {
  const err = peek(first, 'err')
  return typeof peek(err, 'message') === 'string' ? [{ ...first as object, err: copyFacts(err as ErrorFacts) }, ...rest] : [first, ...rest]
}

/**
 * The URL of a worker file.
 * @throws FST_BG_BAD_OPTION
 */
export function workerFile (where: string, worker: unknown): string {
  const path = pathOf(worker)
  if (path === undefined || !isFile(path)) {
    throw new errors.BadOption(where, 'a file: URL or an absolute path of a file', path === undefined ? came(worker) : `${path}, which is none`)
  }
  return pathToFileURL(path).href
}

function pathOf (worker: unknown): string | undefined {
  if (typeof worker === 'string' && isAbsolute(worker)) return worker
  try {
    return fileURLToPath(worker as string | URL)
  } catch {
    return undefined
  }
}

function isFile (path: string): boolean {
  try {
    return statSync(path).isFile()
  } catch {
    return false
  }
}
