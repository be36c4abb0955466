// Two partners behind one HTTP server. `flaky` answers the third call for a job, `broken` none until POST /repair.

import { once } from 'node:events'
import { createServer } from 'node:http'

/** onCall: called with { partner, status } for each call */
export async function startPartnerServer ({ onCall = () => {} } = {}) {
  const calls = new Map()
  let broken = true

  function flakyStatus (key) {
    const count = (calls.get(key) ?? 0) + 1
    calls.set(key, count)
    if (count < 3) return 503
    calls.delete(key)
    return 200
  }

  function answer (request) {
    const key = request.headers['idempotency-key']
    switch (`${request.method} ${request.url}`) {
      case 'POST /flaky/sync': return { partner: 'flaky', status: flakyStatus(key) }
      case 'POST /broken/sync': return { partner: 'broken', status: broken ? 503 : 200 }
      case 'POST /repair':
        broken = false
        return { status: 200, body: { repaired: 'broken' } }
      default: return { status: 404 }
    }
  }

  const server = createServer((request, response) => {
    const { partner, status, body } = answer(request)
    if (partner) onCall({ partner, status })
    response.writeHead(status, { 'content-type': 'application/json' })
    response.end(JSON.stringify(body ?? (status === 200 ? { partner, records: 42 } : { message: `no: ${status}` })))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')

  const url = `http://127.0.0.1:${server.address().port}`
  return {
    url,
    partners: { flaky: `${url}/flaky/`, broken: `${url}/broken/` },
    async close () {
      const closed = once(server, 'close')
      server.close()
      server.closeIdleConnections()
      await closed
    }
  }
}
