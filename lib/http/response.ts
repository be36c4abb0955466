/** What Node tells of a raw response, and what it does not tell: when a handler answers a client that has left. */
import type { ServerResponse } from 'node:http'
import type { Http2ServerResponse } from 'node:http2'
import type { FastifyReply } from 'fastify'

export type RawResponse = ServerResponse | Http2ServerResponse

export function isHttp2 (raw: RawResponse): raw is Http2ServerResponse {
  return 'stream' in raw
}

/** Whether the response had ended, or its connection was gone, before anybody listened. */
export function isGone ({ raw, request }: FastifyReply): boolean {
  if (isHttp2(raw)) return (raw.stream as typeof raw.stream | undefined)?.destroyed !== false || raw.stream.closed
  return raw.closed || raw.destroyed || request.raw.socket?.destroyed === true
}

/** What `inject` was answered is complete before Node counts it as written. */
export function isComplete (raw: RawResponse): boolean {
  return raw.writableFinished || (raw.writableEnded && raw.socket?.destroyed === false)
}

/** Node takes an answer to a client that is gone for a finished one. (A request made by `inject` is always aborted in the end.) */
export function leftEarly ({ request: { raw } }: FastifyReply): boolean {
  return raw.aborted && raw.socket?.destroyed === true
}

/** Node 24 destroys what waits for its turn on a connection that closes: that is no handler's end. */
function isNodesOwn (raw: RawResponse, error: unknown): boolean {
  return raw.socket === null && (error as NodeJS.ErrnoException | undefined)?.code === 'ECONNRESET'
}

/**
 * Calls `done` when Fastify answers into a response whose client is gone. No hook tells of it without a cost for
 * every route, so this one response is watched where every answer passes, until what this returns is called.
 */
export function afterHandler (raw: RawResponse, done: () => void): () => void {
  const restore: Array<() => void> = []
  // Streams of both kinds are sent after Fastify has asked `finished` for the end of the response, which begins to listen
  // for `end`; on Node 24, where the response has closed, for `error` alone.
  const onListener = (event: string | symbol): void => { if (event === 'end' || event === 'error') done() }
  raw.on('newListener', onListener)
  for (const method of ['writeHead', 'end', 'destroy'] as const) {
    const own = Object.getOwnPropertyDescriptor(raw, method)
    const previous = raw[method] as (...args: unknown[]) => unknown
    const value = (...args: unknown[]): unknown => {
      try {
        return Reflect.apply(previous, raw, args)
      } finally {
        if (method !== 'destroy' || !isNodesOwn(raw, args[0])) done() // only now: the call may set the status
      }
    }
    Object.defineProperty(raw, method, { configurable: true, writable: true, value })
    restore.push(() => {
      if (Object.getOwnPropertyDescriptor(raw, method)?.value !== value) return // somebody laid more over it
      if (own === undefined) Reflect.deleteProperty(raw, method)
      else Object.defineProperty(raw, method, own)
    })
  }
  return () => {
    raw.removeListener('newListener', onListener)
    for (const each of restore) each()
  }
}
