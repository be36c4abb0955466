import { readFileSync } from 'node:fs'
import { test } from 'tap'
import { memory, type Backend, type Capabilities } from '../lib/index.ts'
import { withCapabilities } from './support/capabilities.ts'
import { TestClock } from './support/clock.ts'
import { setup } from './support/harness.ts'

/** A backend that can do everything but one thing. */
function without (capability: keyof Capabilities): Backend {
  const real = memory({ clock: new TestClock() })
  return new Proxy(real, {
    get (target, key: keyof Backend) {
      const value: unknown = Reflect.get(target, key)
      if (key === 'capabilities') return { ...target.capabilities, [capability]: false }
      return typeof value === 'function' ? value.bind(target) as unknown : value
    }
  })
}

const asked = [
  ['deduplication', { deduplication: { id: 'a' } }], ['groups', { group: { id: 'a' } }], ['delay', { delay: 5 }], ['delay', { runAt: 0 }], ['ttl', { ttl: 5 }], ['priority', { priority: -1 }]
] as const

for (const [capability, options] of asked) {
  const [name] = Object.keys(options)
  test(`${name} is refused by name where the backend cannot: at the call, and at ready for a task`, async (t) => {
    const { app, background } = await setup(t, { backend: without(capability) })
    background.define('plain', () => {})
    await app.ready()
    await t.rejects(background.add('plain', null, options), { code: 'FST_BG_NOT_SUPPORTED', statusCode: 500, message: new RegExp(`^${name} is not supported.*memory`) })
    await t.resolves(background.add('plain'))
    const other = await setup(t, { backend: without(capability) })
    other.background.define('special', options, () => {})
    await t.rejects(async () => { await other.app.ready() }, { code: 'FST_BG_NOT_SUPPORTED' })
  })
}

test('a limiter is refused at ready where the backend has none', async (t) => {
  const { app } = await setup(t, { backend: without('limiter'), queues: { api: { limiter: { max: 1, duration: 5 } } } })
  await t.rejects(async () => { await app.ready() }, { code: 'FST_BG_NOT_SUPPORTED', message: /limiter of queue "api"/ })
})

test('functions live in memory where the backend cannot keep them', async (t) => {
  const { app, background } = await setup(t, { backend: without('inline') })
  await app.ready()
  t.equal(await (await background.add(() => 'ran')).finished(), 'ran')
})

test('the table in the README is what the backends say of themselves', (t) => {
  const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8')
  t.equal(readme, withCapabilities(readme), 'npm run capabilities')
  t.end()
})
