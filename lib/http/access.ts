/** Who may do what with jobs over HTTP. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { errors } from '../errors.ts'
import type { JobRecord } from '../job.ts'
import type { Action, Authorize } from '../options.ts'

/** Asks the application's `authorize`, each time. Without one, reading a status by its id is open. */
export class Access {
  readonly #authorize: Authorize | undefined

  constructor (authorize: Authorize | undefined) {
    this.#authorize = authorize
  }

  /** Whether readers were let in: then they see the texts of errors. */
  get guarded (): boolean { return this.#authorize !== undefined }

  /** @throws FST_BG_FORBIDDEN */
  async ask (request: FastifyRequest, action: Action): Promise<void> {
    if (!await this.may(request, action)) throw new errors.Forbidden(action)
  }

  async may (request: FastifyRequest, action: Action, job?: JobRecord): Promise<boolean> {
    // A copy: what the application does to it, nobody else sees.
    return this.#authorize === undefined || await this.#authorize(request, action, job && { ...job }) === true
  }

  /**
   * The job, for whom it is there. A foreign one is not told from an unknown one.
   * @throws FST_BG_JOB_NOT_FOUND
   */
  async to (request: FastifyRequest, action: Action, job: JobRecord | undefined): Promise<JobRecord> {
    if (job === undefined || !await this.may(request, action, job)) throw new errors.JobNotFound()
    return job
  }
}

/**
 * An `onRequest` hook of routes that change something. A page of another site can make a browser send what needs no
 * leave: a form, a text, an empty body. It cannot name JSON as the content type without asking first, and it cannot hide
 * where it comes from.
 * @throws FST_BG_CROSS_SITE, FST_BG_NOT_JSON
 */
export async function fromHere (request: FastifyRequest, _reply: FastifyReply): Promise<void> {
  const { headers } = request
  const site = headers['sec-fetch-site']
  if (site !== undefined && site !== 'same-origin' && site !== 'none') throw new errors.CrossSite()
  // A browser never sends another method than POST to another site without asking.
  if (request.method !== 'POST') return
  const type = headers['content-type'] ?? ''
  if (!/^application\/json\s*(;|$)/i.test(type)) throw new errors.NotJson()
  // Fastify refuses an empty body that is said to be JSON. Here it is one without wishes.
  if (hasNoBody(request)) delete headers['content-type']
}

function hasNoBody ({ raw, headers }: FastifyRequest): boolean {
  const { stream } = raw as { stream?: { endAfterHeaders?: boolean } }
  if (raw.httpVersionMajor >= 2) return stream?.endAfterHeaders === true
  return headers['transfer-encoding'] === undefined && Number(headers['content-length'] ?? 0) === 0
}
