// @ts-check
/**
 * Tenants share a queue: they take turns, none has more than two imports at once or a hundred a minute, and a partner that
 * is down costs no attempt: a circuit breaker, from a library, says so before it is called.
 */
import { RetryLaterError } from 'fastify-background-tasks'

/** For the plugin itself. */
export const queues = { imports: { concurrency: 4, groups: { concurrency: 2, limiter: { max: 100, duration: 60_000 } } } }

/**
 * @typedef {{ readonly opened: boolean, fire (tenant: string, file: string): Promise<unknown> }} Breaker As opossum makes them:
 * `new CircuitBreaker(callPartner, { errorThresholdPercentage: 50, resetTimeout: 30_000 })`.
 *
 * @param {import('fastify').FastifyInstance} app
 * @param {{ breaker: Breaker }} options
 */
export default async function tenants (app, { breaker }) {
  const importFile = app.background.define('import-file', { queue: 'imports' }, async (/** @type {{ tenant: string, file: string }} */ { tenant, file }) => {
    if (breaker.opened) throw new RetryLaterError({ delay: 30_000, countAttempt: false })
    return breaker.fire(tenant, file)
  })

  app.post('/tenants/:tenant/imports', (request, reply) => {
    const { tenant } = /** @type {{ tenant: string }} */ (request.params)
    const { file } = /** @type {{ file: string }} */ (request.body)
    return reply.accepted(importFile, { tenant, file }, { group: { id: tenant } })
  })
}
