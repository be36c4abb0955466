// POST /partners/:name/sync accepts the work and says where to follow it: the whole 202 pattern in one call.

export default async function partnerRoutes (app, { partners }) {
  app.post('/partners/:name/sync', async (request, reply) => {
    const { name } = request.params
    if (!Object.hasOwn(partners, name)) return reply.callNotFound()
    return reply.accepted('sync-partner', { partner: name })
  })
}
