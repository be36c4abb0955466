/** Each `when` with each `onAbort`, for clients that stay and clients that leave. */
import type { FastifyReply } from 'fastify'
import t from 'tap'
import { deferred } from '../../support/harness.ts'
import { open, protocols, site } from '../../support/http.ts'

const broken = new Error('broken on purpose')

const policies = (['handled', 'success', 'error', 'always'] as const).flatMap((when) => (['run', 'drop'] as const).map((onAbort) => ({ when, onAbort })))
const lasts: Array<{ what: string, answer: (reply: FastifyReply) => unknown, accepting: string[] }> = [
  { what: 'answers', answer: () => 'ok', accepting: ['handled', 'success', 'always'] },
  { what: 'answers a 400', answer: (reply) => reply.code(400).send('no'), accepting: ['handled', 'always'] },
  { what: 'throws', answer: () => { throw broken }, accepting: ['error', 'always'] }
]

for (const protocol of protocols) {
  for (const leaves of [false, true]) {
    for (const { what, answer, accepting } of lasts) {
      t.test(`each \`when\` with each \`onAbort\` when the client ${leaves ? 'leaves' : 'stays'} and the handler ${what}, over ${protocol}`, async (t) => {
        const gate = deferred()
        const made = await site(t, ({ app, ledger }) => {
          app.get('/', async (_, reply) => {
            for (const options of policies) ledger.accept(reply, options)
            await gate.promise
            return answer(reply)
          })
        }, { protocol })
        const exchange = await open(made, '/')
        await made.ledger.accepted(policies.length)
        if (leaves) {
          exchange.leave()
          await made.ledger.entries[0]!.end.promise
        }
        gate.resolve()
        if (!leaves) await exchange.answer()
        const wanted = policies.map(({ when, onAbort }) => {
          if (!accepting.includes(when)) return 'cancelled: response'
          return leaves && onAbort === 'drop' ? 'cancelled: client-abort' : 'completed'
        })
        await made.check(t, policies.length, wanted.filter((state) => state !== 'completed').length)
        const jobs = await Promise.all(policies.map((_, index) => made.job(index)))
        t.same(jobs.map(({ state, reason }) => reason === undefined ? state : `${state}: ${reason}`), wanted)
      })
    }
  }
}
