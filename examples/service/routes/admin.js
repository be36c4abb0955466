// POST /admin/replay gives dead letters of one task another round, for holders of the token.

import { createHash, timingSafeEqual } from 'node:crypto'

const schema = {
  body: {
    type: 'object',
    required: ['task'],
    properties: { task: { type: 'string' }, dryRun: { type: 'boolean', default: false } }
  }
}

const digest = (text) => createHash('sha256').update(text).digest()

export default async function adminRoutes (app, { token }) {
  const expected = digest(`Bearer ${token}`)

  app.addHook('onRequest', async (request, reply) => {
    if (timingSafeEqual(digest(request.headers.authorization ?? ''), expected)) return
    return reply.code(401).header('www-authenticate', 'Bearer').send({ message: 'a token is needed' })
  })

  app.post('/admin/replay', { schema }, async (request) => {
    const { task, dryRun } = request.body
    return app.background.deadLetters.retry({ task }, { dryRun })
  })
}
