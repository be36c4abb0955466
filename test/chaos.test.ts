/** The short form of the chaos run; the long one is `npm run proof:chaos`. */
import t from 'tap'
import { chaos } from './proof/chaos/run.ts'
import { watchLeaks } from './support/leaks.ts'

t.test('1 500 requests of hostile clients: each job ends once and after its response, and nothing is left behind', async (t) => {
  // Fastify closes an HTTP/2 connection after a refused body by a header that HTTP/2 does not have.
  watchLeaks(t, { allowWarnings: /connection header is not valid/ })
  const totals = await chaos({ requests: 1_500, seed: 1 })
  t.ok(totals.clean, totals.sum, { examples: totals.examples })
  const { accepted, ran, refused, dropped } = totals.all
  t.equal(accepted, ran + refused + dropped)
  t.ok(totals.byKind.size >= 15 && totals.byClient.size >= 8, `${totals.byKind.size} kinds of handlers, ${totals.byClient.size} kinds of clients`)
  t.ok(totals.pairs.size > 500, `${totals.pairs.size} pairs`)
})
