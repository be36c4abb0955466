/**
 * `Idempotency-Key` on `reply.accepted`: a client that is not sure whether its request arrived sends it again. The key
 * becomes the job's deduplication id, so that every process that shares a store knows it, as long as the job is kept.
 */
import { createHash } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { errors } from '../errors.ts'
import type { Duplicate } from '../job.ts'
import type { Json } from '../json.ts'
import type { Gate } from './gate.ts'

export interface ClientKey {
  /** Names the request: two clients, or two resources, may use the same key. */
  readonly id: string
  /** Of the body it came with. */
  readonly print: string
}

/**
 * Nothing without the header. `payload`: of the job, which stands for a body that cannot be compared.
 * @throws FST_BG_BAD_IDEMPOTENCY_KEY
 */
export function readKey (request: FastifyRequest, payload: Json): ClientKey | undefined {
  const header = request.headers['idempotency-key']
  if (header === undefined) return undefined
  const key = String(header).trim().replace(/^"(.*)"$/, '$1')
  if (!/^[\x21-\x7e]{1,255}$/.test(key)) throw new errors.BadIdempotencyKey()
  const { method, url, headers: { authorization = '' } } = request
  return { id: `idempotency-key ${digest(authorization, method, url, key)}`, print: digest(textOf(request, payload)) }
}

function textOf ({ body, headers }: FastifyRequest, payload: Json): string {
  // Parsed parts are streams, and hold other things each time.
  const comparable = body !== undefined && !String(headers['content-type']).startsWith('multipart/')
  try {
    if (comparable) return Buffer.isBuffer(body) ? body.toString('base64') : JSON.stringify(body)
  } catch { /* it has no JSON form */ }
  return JSON.stringify(payload)
}

function digest (...parts: string[]): string {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(`${part.length} ${part}`)
  return hash.digest('base64url')
}

/** Keys whose first request is not answered yet, in this process. */
export class KeysInFlight {
  readonly #gate: Gate
  readonly #keys = new Set<string>()

  constructor (gate: Gate) {
    this.#gate = gate
  }

  /**
   * Stores the job of a request that came with the key. Answers whether another request was first, whose job it is.
   * @throws FST_BG_IDEMPOTENCY_KEY_IN_FLIGHT, FST_BG_IDEMPOTENCY_KEY_REUSED, what `store` throws
   */
  async enter (reply: FastifyReply, { id, print }: ClientKey, store: () => Promise<Duplicate | undefined>): Promise<boolean> {
    if (this.#keys.has(id)) throw Object.assign(new errors.IdempotencyKeyInFlight(), { headers: { 'retry-after': '1' } })
    this.#keys.add(id)
    const leave = (): void => { this.#keys.delete(id) }
    try {
      const first = await store()
      if (first === undefined) {
        reply.raw.once('finish', leave).once('close', leave)
        this.#gate.whenOver(reply, leave) // over HTTP/2 neither may come
        return false
      }
      if (first.print !== undefined && first.print !== print) throw new errors.IdempotencyKeyReused()
    } catch (error) {
      leave()
      throw error
    }
    leave()
    return true
  }
}
