/** What others can see of a store's data and of the way to it; for both stores. */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import t from 'tap'
import { eventually } from '../../support/real-time.ts'
import { tlsFront } from '../../support/tls-front.ts'
import { tls } from '../../support/tls.ts'
import { appOn } from './cluster.ts'
import { plain } from './interop.ts'
import { newSpace, type Store } from './store.ts'

export function secureOn (store: Store): Promise<unknown> {
  const { kind } = store
  const { hostname, port, username, password } = new URL(store.url)
  const credentials = kind.name === 'redis' ? { password } : { user: username, password, database: 'postgres' }
  return t.test(`secrets on ${kind.name}`, { buffered: true }, async (t) => {
    t.test('payloads, results and progress go through the codec; a payload that it cannot read is a dead letter', async (t) => {
      const key = randomBytes(32)
      const codec = {
        encode (text: string) {
          const nonce = randomBytes(12)
          const cipher = createCipheriv('aes-256-gcm', key, nonce)
          const body = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()])
          return Buffer.concat([nonce, cipher.getAuthTag(), body]).toString('base64')
        },
        decode (text: string) {
          const bytes = Buffer.from(text, 'base64')
          const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, 12)).setAuthTag(bytes.subarray(12, 28))
          return decipher.update(bytes.subarray(28), undefined, 'utf8') + decipher.final('utf8')
        }
      }
      const options = store.options()
      const { app } = await appOn(store.create({ ...options, codec }))
      const task = app.background.define<{ secret: string }, { secret: string }>('work', async (payload, { progress }) => {
        progress({ secret: 'half' })
        return { secret: `${payload.secret} done` }
      })
      await app.ready()
      t.teardown(() => app.close())
      const handle = await app.background.add(task, { secret: 'payload' })
      t.strictSame(await handle.finished({ timeout: 30_000 }), { secret: 'payload done' })
      t.match(await app.background.get(handle.id), { payload: { secret: 'payload' }, progress: { secret: 'half' }, result: { secret: 'payload done' } })
      const queue = plain(t, store, options).queue()
      const stored = JSON.stringify((await queue.getJob(handle.id))?.asJSON())
      t.notMatch(stored, /secret|payload"|half|done/)
      const { id } = await queue.add('work', { secret: 'in the clear' }, { jobId: '01900000-0000-7000-8000-000000000000' })
      await eventually(async () => (await app.background.get(id as string))?.state === 'failed', 'the job to fail')
      t.match(await app.background.get(id as string), { failure: 'unrecoverable', error: { message: /codec cannot read/ } })
    })

    t.test('the options of TLS reach the client: its certificate is asked for', async (t) => {
      const front = await tlsFront(Number(port), kind.name === 'postgres')
      t.teardown(() => front.close())
      const by = (secure: object): object => ({
        ...credentials, host: 'localhost', port: front.port, retryStrategy: () => null, ...(kind.name === 'redis' ? { tls: secure } : { ssl: secure })
      })
      const stranger = await appOn(store.create({ store: kind.name, connection: by({}) }))
      await t.rejects(Promise.resolve(stranger.app.ready()), { code: 'FST_BG_STORE_UNAVAILABLE', cause: { message: /certificate|closed/ } })
      await stranger.app.close()
      const { app } = await appOn(store.create({ store: kind.name, connection: { ...by({ ca: tls.cert }), schema: newSpace() }, prefix: newSpace() }))
      const work = app.background.define('work', async () => 'done')
      await app.ready()
      t.teardown(() => app.close())
      t.equal(await (await app.background.add(work)).finished({ timeout: 30_000 }), 'done')
    })

    t.test('ready() says that there is no store, and not with which password it was asked for', async (t) => {
      const there = { ...credentials, host: hostname, port: 1 } // nobody listens there
      const { app, lines } = await appOn(store.create({ store: kind.name, connection: { ...there, retryStrategy: () => null } }))
      const refused = await Promise.resolve(app.ready()).then(() => undefined, (error: Error) => error)
      t.match(refused, { code: 'FST_BG_STORE_UNAVAILABLE' })
      await app.close()
      t.notMatch(JSON.stringify([lines, String(refused?.stack), refused?.cause]), password)
    })
  })
}
