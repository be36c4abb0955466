/**
 * What only a browser can tell: its own EventSource on our stream, and the page of bull-board. `npm run proof:browser`;
 * with BG_SCREENSHOT the picture of the README is taken anew.
 */
import { existsSync } from 'node:fs'
import Fastify, { type FastifyInstance } from 'fastify'
import puppeteer, { type Browser } from 'puppeteer-core'
import t, { type Test } from 'tap'
import { bullBoard } from '../../lib/bull-board/index.ts'
import { sqlite } from '../../lib/backends/sqlite/index.ts'
import { backgroundTasks, memory, type Backend } from '../../lib/index.ts'
import { postgres } from '../support/servers/postgres.ts'
import { redis } from '../support/servers/redis.ts'
import { findServer, type Kind } from '../support/servers/find.ts'
import { deferred, until } from '../support/harness.ts'
import { freshFile, noSqlite, openOther } from '../support/sqlite.ts'
import { storeAt } from '../backends/bullmq/store.ts'
import { ask, boardOver, press } from './board.ts'

const chromium = [process.env['CHROMIUM_PATH'], '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) => path !== undefined && existsSync(path))
if (chromium === undefined && process.env['BG_REQUIRE']?.includes('chromium') === true) throw new Error('BG_REQUIRE wants a chromium: apt-get install chromium, or set CHROMIUM_PATH')
const skip = chromium === undefined ? 'NOT TESTED HERE: no chromium; apt-get install chromium, or set CHROMIUM_PATH' : false

const live = `<!doctype html><title>live</title><script>
  const id = new URLSearchParams(location.search).get('id')
  window.seen = []
  window.errors = 0
  window.source = new EventSource('/jobs/' + id + '/events')
  source.onmessage = (event) => seen.push({ id: event.lastEventId, ...JSON.parse(event.data) })
  source.onerror = () => { errors++ }
</script>`

/** A backend of each kind, or why there is none. */
const stores: Record<string, (t: Test) => Promise<Backend | string> | Backend> = {
  memory: () => memory(),
  SQLite: (t) => noSqlite === false ? sqlite({ path: freshFile(t) }) : sqlite({ database: openOther(freshFile(t)) }),
  'BullMQ on Redis': (t) => onServer(t, redis),
  'BullMQ on PostgreSQL': (t) => onServer(t, postgres)
}

async function onServer (t: Test, kind: Kind): Promise<Backend | string> {
  const found = await findServer(kind)
  if (typeof found === 'string') return found
  t.teardown(found.release)
  return storeAt(kind, found.url).create()
}

interface World {
  readonly browser: Browser
  readonly app: FastifyInstance
  readonly base: string
  broken: boolean
}

async function begin (executablePath: string): Promise<World> {
  const app = Fastify()
  await app.register(backgroundTasks, { routes: { events: true, admin: true }, authorize: () => true, queues: { mail: {} } } as never)
  app.background.define('send-invoice', { attempts: 1 }, () => {
    if (world.broken) throw Object.assign(new Error('mail server answered 451'), { code: 'SMTP_451' })
    return { sent: true }
  })
  await app.register(bullBoard, { prefix: '/board', authorize: (request) => request.headers['x-key'] === 'secret', redact: ['payload.card'] })
  app.get('/live', (_request, reply) => reply.type('text/html').send(live))
  const base = await app.listen({ port: 0, host: '127.0.0.1' })
  const browser = await puppeteer.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage', '--force-color-profile=srgb'] })
  const world: World = { browser, app, base, broken: true }
  return world
}

t.test('in a browser', { skip }, async (t) => {
  const world = await begin(chromium as string)
  const { browser, app, base } = world
  t.teardown(async () => {
    await browser.close()
    await app.close()
  })

  t.test('an EventSource hears every change, comes back after a break, and stays away after the end', async (t) => {
    const page = await browser.newPage()
    const said = deferred<(value: unknown) => void>()
    const end = deferred<string>()
    const requests: Array<{ id: string | undefined, status: number }> = []
    page.on('response', (response) => { if (response.url().endsWith('/events')) requests.push({ id: response.request().headers()['last-event-id'], status: response.status() }) })
    const { id } = await app.background.add(({ progress }) => { said.resolve(progress); return end.promise })
    await page.goto(`${base}/live?id=${id}`)
    await page.waitForFunction('seen.length === 1')
    ;(await said.promise)({ percent: 50 })
    await page.waitForFunction('seen.length === 2')
    end.resolve('done')
    await page.waitForFunction('seen.length === 3')
    t.match(await ask(page, 'seen'), [{ state: 'active', progress: null }, { state: 'active', progress: { percent: 50 } }, { state: 'completed', result: 'done' }])
    await page.waitForFunction('source.readyState === EventSource.CLOSED') // it came back with the id of the last event, and was told 204
    await until(() => requests.at(-1)?.status === 204)
    // A browser that has just started may drop its connections once more: then it has come back in between, too.
    t.match([requests[0], requests.at(-1)], [{ id: undefined, status: 200 }, { id: await ask<string>(page, 'seen[2].id'), status: 204 }])
    t.equal(await ask(page, 'seen.length'), 3, JSON.stringify([await ask(page, 'seen'), requests]))
    await page.close()
  })

  t.test('the page shows nothing to who has no key', async (t) => {
    const page = await browser.newPage()
    const response = await page.goto(`${base}/board/`)
    t.equal(response?.status(), 403)
    await page.close()
  })

  t.test('the page shows a queue, a dead letter with its error and its payload, retries it and pauses', async (t) => {
    const page = await browser.newPage()
    await page.setViewport({ width: 1_200, height: 720 })
    await page.setExtraHTTPHeaders({ 'x-key': 'secret' })
    const faults: string[] = []
    page.on('pageerror', (error) => { faults.push(String(error)) })
    const job = await app.background.add('send-invoice', { order: 4711, card: '4111111111111111' })
    await app.background.add('send-invoice', { order: 4712, card: '4242424242424242' }, { delay: 3_600_000 })
    await job.finished().catch(() => {})
    await page.goto(`${base}/board/queue/default?status=failed`)
    await page.waitForFunction(`document.body.innerText.includes('send-invoice')`)
    await page.waitForFunction(`document.body.innerText.includes('mail server answered 451')`)
    await press(page, 'Data')
    await page.waitForFunction(`document.body.innerText.includes('4711')`)
    const text = await ask<string>(page, 'document.body.innerText')
    t.match(text, /\[REDACTED\]/)
    t.notMatch(text, /4111111111111111/)
    if (process.env['BG_SCREENSHOT'] !== undefined) await page.screenshot({ path: process.env['BG_SCREENSHOT'] })
    world.broken = false
    await press(page, 'Retry all')
    await press(page, 'Confirm')
    await until(async () => (await app.background.get(job.id))?.state === 'completed')
    await page.goto(`${base}/board/queue/default/${job.id}`)
    await page.waitForFunction(`document.body.innerText.includes('send-invoice')`)
    t.same(faults, [])
    await page.close()
  })

  for (const [name, make] of Object.entries(stores)) {
    t.test(`an operator works on the page over ${name}`, async (t) => {
      const backend = await make(t)
      if (typeof backend === 'string') return t.plan(0, backend)
      await boardOver(t, browser, backend)
    })
  }
})
