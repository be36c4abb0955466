// POST /signup answers at once; the mail and the count follow after the response. GET /stats shows the count.

const schema = {
  body: {
    type: 'object',
    required: ['email', 'name'],
    properties: {
      email: { type: 'string', format: 'email', maxLength: 254 },
      name: { type: 'string', minLength: 1, maxLength: 100 }
    }
  }
}

export default async function signupRoutes (app, { sendWelcome }) {
  const users = new Map()
  const perDomain = new Map()

  app.post('/signup', { schema }, async (request, reply) => {
    const { email, name } = request.body
    if (users.has(email)) return reply.code(409).send({ message: 'this address has an account' })

    // Staged before the user is saved: if saving throws, the response is an error and the jobs are dropped with it.
    const job = reply.background(sendWelcome, { to: email, name })
    // Too small for a task of its own. It copies what it needs, so that the request can be freed.
    const domain = email.split('@').at(-1)
    reply.background(async ({ log }) => {
      perDomain.set(domain, (perDomain.get(domain) ?? 0) + 1)
      log.info({ domain }, 'signup counted')
    })

    users.set(email, { email, name, since: new Date() })
    return reply.code(202).header('location', job.statusUrl).send({ jobId: job.id, statusUrl: job.statusUrl })
  })

  app.get('/stats', async () => ({ users: users.size, signupsPerDomain: Object.fromEntries(perDomain) }))
}
