/** What only HTTP/2 knows: streams that are reset, sessions that break, many answers on one connection. */
import http2 from 'node:http2'
import t from 'tap'
import { deferred, type Deferred } from '../../support/harness.ts'
import { answered2, connect2, readAll, site, type Protocol, type Site } from '../../support/http.ts'
import { settle } from '../../support/ledger.ts'


const { NGHTTP2_CANCEL, NGHTTP2_INTERNAL_ERROR } = http2.constants
const both: Protocol[] = ['HTTP/2', 'HTTP/2 with TLS']

interface Scene {
  made: Site
  gate: Deferred
  session: http2.ClientHttp2Session
  outcomes: unknown[]
}

/** `/` stages its job, waits for the gate and answers. */
async function sceneOf (t: any, protocol: Protocol): Promise<Scene> {
  const gate = deferred()
  const outcomes: unknown[] = []
  const made = await site(t, ({ app, ledger }) => {
    app.get('/', async (_, reply) => {
      ledger.accept(reply, { when: (outcome) => { outcomes.push(outcome); return true } })
      await gate.promise
      ledger.events.push('handler')
      return reply.code(201).send('answer')
    })
    app.get('/error', async (_, reply) => { ledger.accept(reply, { when: 'error' }); throw new Error('broken on purpose') })
  }, { protocol })
  const session = connect2(made)
  t.teardown(() => { session.destroy() })
  return { made, gate, session, outcomes }
}

for (const protocol of both) {
  for (const method of ['GET', 'HEAD']) {
    for (const code of [NGHTTP2_CANCEL, NGHTTP2_INTERNAL_ERROR]) {
      t.test(`a job starts once, after its handler, when a ${method} is reset with code ${code} before its headers, over ${protocol}`, async (t) => {
        const { made, gate, session, outcomes } = await sceneOf(t, protocol)
        const stream = session.request({ ':path': '/', ':method': method })
        answered2(stream)
        await made.ledger.accepted(1)
        stream.close(code)
        await made.ledger.entries[0]!.end.promise
        await settle()
        t.equal((await made.job()).state, 'pending')
        gate.resolve()
        await made.check(t)
        t.same(made.ledger.events, ['handler', 'job'])
        t.same(outcomes, [{ statusCode: 201, error: undefined, aborted: true }])
      })
    }
  }

  for (const method of ['GET', 'HEAD']) {
    t.test(`a job of a hijacked reply starts once when its ${method} is reset, over ${protocol}`, async (t) => {
      const made = await site(t, ({ app, ledger }) => {
        app.get('/', (_, reply) => { reply.hijack(); ledger.accept(reply) })
      }, { protocol })
      const session = connect2(made)
      t.teardown(() => { session.destroy() })
      const stream = session.request({ ':path': '/', ':method': method })
      answered2(stream)
      await made.ledger.accepted(1)
      stream.close(NGHTTP2_CANCEL)
      await made.check(t)
    })
  }

  t.test(`a job starts once when a HEAD is answered, over ${protocol}`, async (t) => {
    const { made, gate, session, outcomes } = await sceneOf(t, protocol)
    const answer = readAll(answered2(session.request({ ':path': '/', ':method': 'HEAD' })))
    await made.ledger.accepted(1)
    await settle()
    t.equal((await made.job()).state, 'pending', 'its stream says finished, although nothing was sent')
    gate.resolve()
    t.match(await answer, { status: 201, broken: false })
    await made.check(t)
    t.same(outcomes, [{ statusCode: 201, error: undefined, aborted: false }])
  })

  t.test(`a job starts once, after its handler, when the client destroys its session, over ${protocol}`, async (t) => {
    const { made, gate, session } = await sceneOf(t, protocol)
    answered2(session.request({ ':path': '/' }))
    await made.ledger.accepted(1)
    session.destroy()
    await made.ledger.entries[0]!.end.promise
    await settle()
    t.equal((await made.job()).state, 'pending')
    gate.resolve()
    await made.check(t)
    t.same(made.ledger.events, ['handler', 'job'])
  })

  t.test(`the jobs of ten streams start once when their session is destroyed, over ${protocol}`, async (t) => {
    const { made, gate, session } = await sceneOf(t, protocol)
    for (let n = 0; n < 10; n++) answered2(session.request({ ':path': '/' }))
    await made.ledger.accepted(10)
    session.destroy()
    await Promise.all(made.ledger.entries.map(({ end }) => end.promise))
    gate.resolve()
    await made.check(t, 10)
  })

  t.test(`a job starts once when the server destroys the session, over ${protocol}`, async (t) => {
    const { made, gate, session } = await sceneOf(t, protocol)
    answered2(session.request({ ':path': '/' }))
    await made.ledger.accepted(1)
    const { raw } = made.ledger.entries[0]!
    const { stream } = raw as unknown as http2.Http2ServerResponse
    stream.session?.destroy()
    await made.ledger.entries[0]!.end.promise
    gate.resolve()
    await made.check(t)
  })

  t.test(`each of ten jobs starts once, after its own answer on a shared session, over ${protocol}`, async (t) => {
    const { made, gate, session } = await sceneOf(t, protocol)
    const answers = Array.from({ length: 10 }, () => readAll(answered2(session.request({ ':path': '/' }))))
    await made.ledger.accepted(10)
    gate.resolve()
    for (const answer of await Promise.all(answers)) t.match(answer, { status: 201, body: 'answer', broken: false })
    await made.check(t, 10)
  })

  t.test(`a job starts once after an ordinary error, over ${protocol}`, async (t) => {
    const { made, session } = await sceneOf(t, protocol)
    t.match(await readAll(answered2(session.request({ ':path': '/error' }))), { status: 500 })
    await made.check(t)
  })

  t.test(`a stream reset in the middle of its body counts as aborted, over ${protocol}`, async (t) => {
    const outcomes: unknown[] = []
    const made = await site(t, ({ app, ledger }) => {
      app.get('/', async (_, reply) => {
        ledger.accept(reply, { when: (outcome) => { outcomes.push(outcome); return true }, onAbort: 'drop' })
        return reply.send(Buffer.alloc(4_000_000))
      })
    }, { protocol })
    const session = connect2(made)
    t.teardown(() => { session.destroy() })
    const stream = session.request({ ':path': '/' })
    await answered2(stream)
    stream.close(NGHTTP2_CANCEL)
    await made.check(t, 1, 1)
    t.same(outcomes, [{ statusCode: 200, error: undefined, aborted: true }])
    t.match(await made.job(), { state: 'cancelled', reason: 'client-abort' })
  })

  t.test(`an event stream that its client resets counts as aborted, over ${protocol}`, async (t) => {
    const made = await site(t, ({ app, ledger }) => {
      app.get('/', (_, reply) => {
        ledger.accept(reply, { when: 'always', onAbort: 'drop' })
        reply.hijack()
        reply.raw.writeHead(200, { 'content-type': 'text/event-stream' })
        reply.raw.write('data: 1\n\n')
      })
    }, { protocol })
    const session = connect2(made)
    t.teardown(() => { session.destroy() })
    const stream = session.request({ ':path': '/' })
    await answered2(stream)
    stream.close(NGHTTP2_CANCEL)
    await made.check(t, 1, 1)
    t.match(await made.job(), { state: 'cancelled', reason: 'client-abort' })
  })
}
