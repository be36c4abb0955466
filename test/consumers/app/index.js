// What the four test runners test.
import Fastify from 'fastify'
import backgroundTasks from 'fastify-background-tasks'

export async function buildApp (options, bank) {
  const app = Fastify()
  await app.register(backgroundTasks, options)
  const charge = app.background.define('charge', { attempts: 5, backoff: 60_000 }, async ({ order }, { job }) => bank.charge(order, job.id))
  app.post('/orders/:order', async (request, reply) => reply.accepted(charge, { order: request.params.order }))
  await app.ready()
  return app
}

/** Away at first. */
export class Bank {
  charged = []
  open = false
  async charge (order) {
    if (!this.open) throw new Error('the bank is closed')
    this.charged.push(order)
  }
}
