/** What an operator does on the page of bull-board, with the mouse, over one store. */
import Fastify, { type FastifyInstance, type FastifyRegisterOptions } from 'fastify'
import type { Browser, Page } from 'puppeteer-core'
import type { Test } from 'tap'
import { bullBoard } from '../../lib/bull-board/index.ts'
import { backgroundTasks, type Backend, type BackgroundTasksOptions } from '../../lib/index.ts'
import { deferred } from '../support/harness.ts'
import { eventually } from '../support/real-time.ts'

const HOUR = 3_600_000
const SECRET = '4111111111111111'

export async function boardOver (t: Test, browser: Browser, backend: Backend): Promise<void> {
  const { app, base, mend, finish } = await serve(t, backend)
  const { background } = app
  const page = await visit(t, browser)
  const look = async (path: string, ...texts: string[]): Promise<void> => {
    await page.goto(`${base}${path}`)
    for (const text of texts) await sees(page, text)
  }
  const stateOf = async (id: string): Promise<string | undefined> => (await background.get(id))?.state
  const become = (id: string, ...states: Array<string | undefined>): Promise<void> => eventually(async () => states.includes(await stateOf(id)), `${id} to become ${states.join(' or ')}`)
  const dead = [0, 1, 2].map((order) => background.add('send-invoice', { order, card: SECRET }))
  const later = [3, 4, 5].map((order) => background.add('send-invoice', { order }, { delay: HOUR }))
  const running = await background.add('import', {})
  const [first, second, third] = await Promise.all(dead.map(async (added) => (await added).id)) as [string, string, string]
  const [soon, never, much] = await Promise.all(later.map(async (added) => (await added).id)) as [string, string, string]
  for (const id of [first, second, third]) await become(id, 'failed')
  await eventually(async () => (await background.get(running.id))?.progress !== null, 'progress')

  // Counts, lists, detail, logs, progress.
  await look('/board/', 'ACTIVE\n1', 'FAILED\n3', 'DELAYED\n3')
  await look('/board/queue/default?status=failed', first, second, third)
  await look('/board/queue/default?status=delayed', soon, never, much)
  await look(`/board/queue/default/${first}`, 'mail server answered 451')
  await press(page, 'Data')
  await sees(page, '[REDACTED]')
  t.notMatch(await textOf(page), SECRET)
  await press(page, 'Logs')
  await sees(page, 'attempt 1 failed: Error: mail server answered 451')
  await look(`/board/queue/default/${running.id}`, 'import')
  await press(page, 'Progress')
  await sees(page, 'percent:40')

  // Read-only.
  await look('/view/queue/default?status=failed', first)
  t.notMatch(await textOf(page), /Retry all|Clean all/)
  await look(`/view/queue/default/${first}`, 'mail server answered 451')
  t.equal(await ask(page, `fetch('api/queues/default/${first}/retry', { method: 'PUT' }).then(({ status }) => status)`), 405)
  t.equal(await stateOf(first), 'failed')

  // Retry, promote, clean: one and all.
  mend()
  await look(`/board/queue/default/${first}`, first)
  await pressIcon(page, 'Retry')
  await become(first, 'completed')
  await look('/board/queue/default?status=failed', second)
  await press(page, 'Retry all')
  await press(page, 'Confirm')
  for (const id of [second, third]) await become(id, 'completed')
  await look('/board/queue/default?status=completed', first, second, third)
  await look(`/board/queue/default/${second}`, second)
  await pressIcon(page, 'Clean')
  await become(second, undefined)
  await look(`/board/queue/default/${soon}`, soon)
  await pressIcon(page, 'Promote')
  await become(soon, 'completed')
  await look(`/board/queue/default/${never}`, never)
  await pressIcon(page, 'Clean')
  await become(never, 'cancelled', undefined)
  await look('/board/queue/default?status=delayed', much)
  await press(page, 'Promote all')
  await press(page, 'Confirm')
  await become(much, 'completed')

  // Pause and resume.
  await look('/board/queue/default?status=waiting', 'LATEST')
  await pressInMenu(page, 'Pause')
  await eventually(async () => (await background.counts())['default']?.paused, 'the pause')
  const { id: waits } = await background.add('send-invoice', { order: 6 })
  await look('/board/queue/default?status=waiting', waits)
  t.match(await textOf(page), /paused/i)
  t.equal(await stateOf(waits), 'waiting')
  await pressInMenu(page, 'Resume')
  await become(waits, 'completed')
  finish()
  await become(running.id, 'completed')
  const gone = [second, never].map((id) => `404 ${base}/board/api/queues/default/${id}`) // the page of a job that was cleaned asks for it
  t.same(page.faults.filter((fault) => !gone.includes(fault)), [])
}

async function serve (t: Test, backend: Backend): Promise<{ app: FastifyInstance, base: string, mend: () => void, finish: () => void }> {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(backgroundTasks, { backend, queues: { mail: {} } } as FastifyRegisterOptions<BackgroundTasksOptions>)
  let broken = true
  const end = deferred()
  app.background.define('send-invoice', { attempts: 1 }, () => {
    if (broken) throw new Error('mail server answered 451')
    return { sent: true }
  })
  app.background.define('import', (_payload, { progress }) => {
    progress({ percent: 40 })
    return end.promise
  })
  for (const [prefix, readOnly] of [['/board', false], ['/view', true]] as const) {
    await app.register(bullBoard, { prefix, readOnly, authorize: () => true, redact: ['payload.card'] })
  }
  const base = await app.listen({ port: 0, host: '127.0.0.1' })
  return { app, base, mend: () => { broken = false }, finish: () => { end.resolve() } }
}

/** A page that writes down what goes wrong in it: what it throws, and what it asks for in vain. */
async function visit (t: Test, browser: Browser): Promise<Page & { faults: string[] }> {
  const page = Object.assign(await browser.newPage(), { faults: [] as string[] })
  t.teardown(() => page.close())
  await page.setViewport({ width: 1_200, height: 900 })
  page.on('pageerror', (error) => { page.faults.push(String(error)) })
  page.on('response', (response) => {
    if (response.status() >= 400 && !response.url().includes('/view/')) page.faults.push(`${response.status()} ${response.url()}`)
  })
  return page
}

export const ask = <T>(page: Page, expression: string): Promise<T> => page.evaluate(expression) as Promise<T>

const textOf = (page: Page): Promise<string> => ask(page, 'document.body.innerText')

export async function sees (page: Page, text: string): Promise<void> {
  await page.waitForFunction(`document.body.innerText.includes(${JSON.stringify(text)})`)
}

/** Presses the button, tab or entry of a menu with this text, when it is there. */
export async function press (page: Page, text: string): Promise<void> {
  const button = `[...document.querySelectorAll('button, [role=menuitem]')].find((each) => each.innerText.trim() === '${text}')`
  await page.waitForFunction(`${button} !== undefined`)
  await ask(page, `${button}.click()`)
}

async function pressInMenu (page: Page, text: string): Promise<void> {
  await (await page.waitForSelector('button[aria-haspopup=menu]'))?.click()
  await press(page, text)
  await press(page, 'Confirm')
}

/** What an icon means is told when the mouse is over it. */
async function pressIcon (page: Page, text: string): Promise<void> {
  const tips = `[...document.body.children].filter((each) => each.id !== 'root' && each.tagName !== 'SCRIPT').map((each) => each.innerText ?? '').join('')`
  await page.waitForSelector('main button:has(svg)')
  for (const icon of await page.$$('main button:has(svg)')) {
    const before = await ask<string>(page, tips)
    await icon.hover()
    await page.waitForFunction(`${tips} !== ${JSON.stringify(before)}`)
    if (!(await ask<string>(page, tips)).endsWith(text)) continue
    await icon.click()
    return press(page, 'Confirm')
  }
  throw new Error(`no icon says ${text}`)
}
