/** When a response is over, told by Node's own events and not by the plugin. */
import type { Http2ServerResponse } from 'node:http2'
import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'

/** By socket: one listener for all responses on it, so that the plugin's own can be counted. */
const onSocket = new WeakMap<Socket, Set<() => void>>()

/**
 * Calls `run` once: inside the event that ends the response or its connection, or at once if that has passed. To hear
 * it before the plugin does, call this before the plugin is called.
 */
export function onResponseEnd ({ raw, request }: FastifyReply, run: () => void): void {
  const stream = (raw as unknown as Http2ServerResponse).stream as Readable | undefined
  const { socket } = request.raw
  const over = (): void => {
    raw.off('finish', over).off('close', over)
    stream?.off('close', over)
    onSocket.get(socket)?.delete(over)
    run()
  }
  const isOver = 'stream' in raw ? stream?.destroyed !== false : raw.closed || raw.destroyed || socket.destroyed
  if (isOver) return over()
  raw.on('finish', over).on('close', over)
  if (stream === undefined) onClose(socket, over)
  else stream.on('close', over)
}

function onClose (socket: Socket, run: () => void): void {
  let all = onSocket.get(socket)
  if (all === undefined) {
    const runs = all = new Set()
    onSocket.set(socket, all)
    socket.once('close', () => { for (const each of runs) each() })
  }
  all.add(run)
}
