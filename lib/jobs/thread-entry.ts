/** The thread's side of an attempt: loads the worker file, lends it a context, hands back its end as data. */
import { types } from 'node:util'
import type { MessagePort } from 'node:worker_threads'
import { came } from '../check.ts'
import { describe, peek } from '../describe.ts'
import { errors, JobAbortedError, type AbortKind } from '../errors.ts'
import type { ChildRecord, JobFacts } from '../job.ts'
import { copyAsJson, type Json } from '../json.ts'
import { takeProgress } from './context.ts'
import { keepResult, type Kept } from './result.ts'
import { toData, type CrossingError } from './thread-error.ts'

/** What goes into the thread. */
export interface Errand {
  /** URL of the worker file. */
  readonly file: string
  readonly payload: Json
  readonly job: JobFacts
  readonly children: readonly ChildRecord[]
  readonly maxBytes: number
  /** Of the application's logger: lines below it stay in the thread. */
  readonly level: string
  /** To the attempt: up `Said`, down `Abort`. */
  readonly port: MessagePort
}
export interface Abort { readonly kind: AbortKind, readonly detail: string }
export type Said =
  | { readonly kind: 'progress', readonly value: Json }
  | { readonly kind: 'log', readonly level: Level, readonly values: Json[] }
  /** The body asked for its signal. */
  | { readonly kind: 'listens' }
export type Ended = Kept & { readonly threw?: CrossingError }

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const
type Level = typeof LEVELS[number]

/** Written by the application's logger, with `jobId, task, attempt, reqId`. Values cross by JSON's rules, errors described. */
export type ThreadLog = { readonly [Each in Level]: (...values: unknown[]) => void }

/** What the default export of a worker file is given beside its payload. There is no `app` in a thread. */
export interface ThreadContext {
  readonly job: JobFacts
  /** Of a job of a flow: those it waited for; empty for any other. */
  readonly children: readonly ChildRecord[]
  /**
   * Aborts on timeout, cancel and shutdown. A body that asked for it has half of the plugin's `abortGrace` to end;
   * any other is ended at once.
   */
  readonly signal: AbortSignal
  readonly log: ThreadLog
  /**
   * Shown in the job's status.
   * @throws FST_BG_BAD_OPTION when the value has no JSON form or is larger than `maxPayloadBytes`
   */
  readonly progress: (value: unknown) => void
}

/** What `Piscina.move` wraps a value in, told by Piscina's public symbol: there is no need to import it here. */
const MOVED = Symbol.for('Piscina.valueOf')

export default async function runErrand (errand: Errand): Promise<Ended> {
  try {
    const body = await load(errand.file)
    if (typeof body !== 'function') {
      const error = new errors.BadHandler(`the default export of ${errand.file}`, came(body))
      return { threw: { ...toData(error), unrecoverable: true } } // another attempt would find the same file
    }
    const returned: unknown = await body(errand.payload, contextOf(errand))
    return keepResult(peek(returned, MOVED) ?? returned, errand.maxBytes)
  } catch (thrown) {
    return { threw: toData(thrown) }
  }
}

async function load (file: string): Promise<unknown> {
  return ((await import(file)) as { default?: unknown }).default
}

function contextOf ({ job, children, maxBytes, level, port }: Errand): ThreadContext {
  const say = (said: Said): void => { port.postMessage(said) }
  let signal: AbortSignal | undefined
  return {
    job,
    children,
    log: logOf(level, say),
    progress: (value) => { say({ kind: 'progress', value: takeProgress(value, maxBytes) }) },
    get signal () { return (signal ??= takeSignal(port, say)) }
  }
}

function takeSignal (port: MessagePort, say: (said: Said) => void): AbortSignal {
  const controller = new AbortController()
  port.on('message', ({ kind, detail }: Abort) => { controller.abort(new JobAbortedError(kind, detail)) })
  say({ kind: 'listens' })
  return controller.signal
}

/** A level this does not know lets everything through: the logger itself has the last word. */
function logOf (lowest: string, say: (said: Said) => void): ThreadLog {
  const muted = lowest === 'silent' ? LEVELS.length : LEVELS.indexOf(lowest as Level)
  const each = LEVELS.map((level, rank) => [level, (...values: unknown[]) => {
    if (rank >= muted) say({ kind: 'log', level, values: asJson(values) })
  }])
  return Object.fromEntries(each) as ThreadLog
}

function asJson (values: unknown[]): Json[] {
  const [first, ...rest] = values
  try {
    const err = describe(types.isNativeError(first) ? first : peek(first, 'err'))
    if (types.isNativeError(first)) values = [{ err }, ...(rest.length === 0 ? [err.message] : rest)]
    else if (types.isNativeError(peek(first, 'err'))) values = [{ ...first as object, err }, ...rest]
    return copyAsJson(values)?.value as Json[]
  } catch {
    return [String(values.find((value) => typeof value === 'string') ?? 'a line without a JSON form')]
  }
}
