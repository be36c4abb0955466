// @ts-check
/**
 * Once only. A customer's report is built by one job at a time, however often it is asked for; a reminder goes out once a
 * day; and a client that is not sure whether its order arrived sends it again with the same `Idempotency-Key`.
 *
 * @param {import('fastify').FastifyInstance} app
 */
export default async function once (app) {
  const report = app.background.define('build-report', async (/** @type {{ customer: string }} */ { customer }) => ({ built: customer }))
  const remind = app.background.define('remind', async (/** @type {{ customer: string }} */ { customer }) => ({ reminded: customer }))
  const order = app.background.define('take-order', async (/** @type {{ items: string[] }} */ { items }) => ({ items: items.length }))

  app.post('/customers/:id/report', (request, reply) => {
    const { id: customer } = /** @type {{ id: string }} */ (request.params)
    return reply.accepted(report, { customer }, { deduplication: { id: customer } })
  })

  app.post('/customers/:id/reminder', async (request) => {
    const { id: customer } = /** @type {{ id: string }} */ (request.params)
    const job = await app.background.add(remind, { customer }, { deduplication: { id: customer, ttl: 86_400_000 } })
    return { jobId: job.id }
  })

  // Nothing to do: `reply.accepted` minds the header by itself.
  app.post('/orders', (request, reply) => reply.accepted(order, /** @type {{ items: string[] }} */ (request.body)))
}
