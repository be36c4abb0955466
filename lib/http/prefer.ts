/** `Prefer: wait=N` and `respond-async` on `reply.accepted` (RFC 7240). */
import type { FastifyReply } from 'fastify'
import type { JobRecord } from '../job.ts'
import type { Control } from '../jobs/control.ts'

export interface Preference {
  /** Ms; 0: not asked for, or not granted. */
  readonly wait: number
  /** For `Preference-Applied`; empty when nothing was applied. */
  readonly applied: string
}

/** Reads the header. The first of equal names counts, names are case-insensitive, what cannot be read is no preference. */
export function readPrefer (header: string | string[] | undefined, maxWait: number): Preference {
  const asked = new Map<string, string>()
  for (const part of String(header ?? '').split(',', 32)) {
    const [preference = ''] = part.split(';', 1)
    const [name = '', value = ''] = preference.split('=', 2)
    const key = name.trim().toLowerCase()
    if (!asked.has(key)) asked.set(key, value.trim().replace(/^"(.*)"$/, '$1'))
  }
  const seconds = asked.get('wait') ?? ''
  const wait = /^\d{1,9}$/.test(seconds) ? Math.min(Number(seconds) * 1_000, maxWait) : 0
  const applied = []
  if (asked.has('respond-async')) applied.push('respond-async')
  if (wait > 0) applied.push(`wait=${Math.ceil(wait / 1_000)}`)
  return { wait, applied: applied.join(', ') }
}

/** Requests that wait for a job. They end early when their client leaves, and all of them when the server closes. */
export class Waits {
  readonly #control: Control
  readonly #open = new Set<AbortController>()
  #closing = false

  constructor (control: Control) {
    this.#control = control
  }

  /** The job as it stands when it has ended, or when the waiting is over. Nothing when it is not kept any more. */
  async wait (reply: FastifyReply, id: string, ms: number): Promise<JobRecord | undefined> {
    const stop = new AbortController()
    const leave = (): void => { stop.abort() }
    this.#open.add(stop)
    reply.raw.once('close', leave)
    if (this.#closing) leave()
    try {
      return await this.#control.untilFinal(id, ms, stop.signal)
    } catch {
      return await this.#control.get(id)
    } finally {
      this.#open.delete(stop)
      reply.raw.removeListener('close', leave)
    }
  }

  endAll (): void {
    this.#closing = true
    for (const stop of this.#open) stop.abort()
  }
}
