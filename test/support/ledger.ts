/**
 * Watches over the rule of responses: a job starts once, after the response that staged it is over, and nothing of it
 * stays on the response or its socket.
 */
import type { Socket } from 'node:net'
import type { FastifyReply } from 'fastify'
import type { JobHandle, JobOptions } from '../../lib/index.ts'
import { deferred } from './harness.ts'
import { onResponseEnd } from './response-end.ts'

/** Lets what is under way in this process come to rest. */
export async function settle (turns = 5): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => { setImmediate(resolve) })
}

interface Entry {
  id: string
  runs: number
  /** Starts before the response was over, or in the same turn of the loop. */
  early: number
  end: End
  raw: FastifyReply['raw']
  socket: Socket
}

interface End {
  over: boolean
  /** Resolves in the turn after the response, or its connection, has ended: no job may start before that turn. */
  promise: Promise<void>
}

/** Who accepted a job writes it down before the call, so that a lost one is seen. */
export class Ledger {
  readonly entries: Entry[] = []
  /** What happened, in order; `job` for each start. Tests add their own. */
  readonly events: string[] = []
  /** Writes down, but stages nothing: shows what a response looks like without us. */
  control = false
  #arrived = deferred()

  /** Stages a job, as `reply.background` does, and watches over it. */
  accept (reply: FastifyReply, options?: JobOptions, name = 'job'): JobHandle | undefined {
    // Before the gate is called, so that its own listeners come after ours.
    const entry: Entry = { id: '', runs: 0, early: 0, end: endOf(reply), raw: reply.raw, socket: reply.request.raw.socket }
    this.entries.push(entry)
    this.#arrived.resolve()
    this.#arrived = deferred()
    if (this.control) return undefined
    const handle = reply.background(() => {
      entry.runs++
      if (!entry.end.over) entry.early++
      this.events.push(name)
    }, options)
    entry.id = handle.id
    return handle
  }

  /** Resolves when so many were written down. */
  async accepted (count: number): Promise<void> {
    while (this.entries.length < count) await this.#arrived.promise
  }

  summary (refused = 0): Record<string, number> {
    const runs = this.entries.map((entry) => entry.runs)
    return {
      accepted: runs.length,
      early: this.entries.filter((entry) => entry.early > 0).length,
      lost: runs.filter((n) => n === 0).length - refused,
      twice: runs.filter((n) => n > 1).length
    }
  }
}

const ends = new WeakMap<object, End>()
let waiting: Array<() => void> = []

/** One hop for all, as in the gate: of two responses that end in one turn, both are over in the next. */
function nextTurn (run: () => void): void {
  if (waiting.push(run) > 1) return
  setImmediate(() => {
    const all = waiting
    waiting = []
    for (const each of all) each()
  })
}

function endOf (reply: FastifyReply): End {
  const known = ends.get(reply.raw)
  if (known !== undefined) return known
  const end: End = { over: false, promise: Promise.resolve() }
  ends.set(reply.raw, end)
  end.promise = new Promise((resolve) => {
    onResponseEnd(reply, () => { nextTurn(() => { end.over = true; resolve() }) })
  })
  return end
}

/** How many listeners there are, and what was laid over the response's own methods. */
export function leftOn (target: { eventNames (): unknown[], listenerCount (event: string): number }): Record<string, number> {
  const left: Record<string, number> = {}
  for (const event of ['finish', 'close', 'pipe', 'newListener', 'drain', 'error']) left[event] = target.listenerCount(event)
  for (const method of ['writeHead', 'write', 'end', 'destroy', 'setHeader']) {
    if (Object.hasOwn(target, method)) left[method] = 1
  }
  return left
}
