/** What the plugin leaves on a response, its stream and its socket. */
import type { EventEmitter } from 'node:events'
import type { Http2ServerResponse } from 'node:http2'
import type { FastifyReply } from 'fastify'

interface Found {
  what: string
  target: EventEmitter
  listener: unknown
}

const EVENTS = ['finish', 'close', 'end', 'error', 'drain', 'pipe', 'timeout', 'aborted', 'newListener', 'removeListener']
const METHODS = ['writeHead', 'write', 'end', 'destroy', 'setHeader', 'emit', 'on']

/** How many listeners of the plugin a socket has got. More than one would grow with its requests. */
const onSocket = new WeakMap<object, number>()

/** Knows a listener of the plugin by its coming while the plugin was called. */
export class Traces {
  readonly #targets: Record<string, EventEmitter>
  readonly #laidOver: string[]
  readonly #added: Found[] = []
  #tooMany = 0

  constructor ({ raw, request }: FastifyReply) {
    this.#targets = 'stream' in raw ? { response: raw, stream: (raw as unknown as Http2ServerResponse).stream } : { response: raw, socket: request.raw.socket }
    this.#laidOver = METHODS.filter((method) => Object.hasOwn(raw, method))
  }

  watch<T> (call: () => T): T {
    const before = this.#listeners()
    try {
      return call()
    } finally {
      for (const found of this.#listeners()) {
        if (before.some(({ target, listener }) => target === found.target && listener === found.listener)) continue
        this.#added.push(found)
        if (!found.what.startsWith('socket')) continue
        const count = (onSocket.get(found.target) ?? 0) + 1
        onSocket.set(found.target, count)
        if (count > 1) this.#tooMany++
      }
    }
  }

  #listeners (): Found[] {
    return Object.entries(this.#targets).flatMap(([name, target]) => {
      // A stream that was reset is taken from its response.
      if (target === undefined) return []
      return EVENTS.flatMap((event) => target.rawListeners(event).map((listener) => ({ what: `${name} ${event}`, target, listener })))
    })
  }

  /** What is there when the response and its connection have ended: a line each. */
  left (): string[] {
    const now = this.#listeners()
    const response = this.#targets['response'] as EventEmitter
    return [
      ...this.#added.filter(({ listener }) => now.some((found) => found.listener === listener)).map(({ what }) => what),
      ...now.filter(({ what }) => what === 'response newListener').map(({ what }) => what),
      ...METHODS.filter((method) => Object.hasOwn(response, method) && !this.#laidOver.includes(method)).map((method) => `response.${method}`),
      ...Array<string>(this.#tooMany).fill('one more on a socket')
    ]
  }
}
