/**
 * `npm run proof:monitoring`: Prometheus itself scrapes an application in which everything goes wrong that the alerts of
 * examples/monitoring are about, and every query of the dashboard finds something, every alert is raised. Where Prometheus is
 * not installed this says so and proves nothing; with BG_REQUIRE=prometheus it fails.
 */
import { spawnSync } from 'node:child_process'
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import Fastify from 'fastify'
import promClient from 'prom-client'
import { backgroundTasks, memory, type Backend } from '../../lib/index.ts'
import { metrics } from '../../lib/metrics/index.ts'
import { BusyClock } from '../support/clock.ts'
import { inPath } from '../support/servers/find.ts'
import { OwnServer } from '../support/servers/process.ts'

const EXAMPLES = join(process.cwd(), 'examples', 'monitoring')
const PATIENCE = 60_000

const clock = new BusyClock()
let away = false
/** A store that can be out of reach, as one on a network. */
const backend = new Proxy(memory({ clock }), {
  get: (store: Backend, key: keyof Backend) => {
    if (key === 'unreachable') return away
    const value: unknown = store[key]
    return typeof value === 'function' ? (value as () => unknown).bind(store) : value
  }
})

/** Jobs that complete, are retried, die, are dropped, refused, hold the loop and ignore their signal, and one that waits. */
async function goWrong (background: Awaited<ReturnType<typeof serve>>['app']['background']): Promise<void> {
  for (let n = 0; n < 5; n++) await background.add('bad')
  await background.add(() => new Promise(() => {}), { timeout: 100 })
  await clock.calm.advance(2_000)
  await background.deadLetters.retry({ task: 'bad' })
  await background.add('greedy')
  for (let n = 0; n < 20; n++) await background.add('good')
  await clock.calm.advance(2_000)
  await background.pause()
  for (let n = 0; n < 101; n++) await background.add('good').catch(() => {})
  await clock.calm.advance(70_000)
}

async function serve () {
  const app = Fastify()
  await app.register(backgroundTasks, { backend, maxQueueSize: 100, abortGrace: 10, retention: { failed: { count: 3 } } })
  await app.register(metrics, { client: promClient })
  app.background.define('good', () => {})
  app.background.define('greedy', () => { clock.spend(30_000) })
  app.background.define('bad', { attempts: 2, backoff: 500 }, () => { throw new Error('no') })
  app.get('/metrics', async () => promClient.register.metrics())
  await app.listen({ port: 0, host: '127.0.0.1' })
  return { app, port: (app.server.address() as AddressInfo).port }
}

function prometheus (path: string, target: number): Promise<OwnServer> {
  return OwnServer.create({
    signal: 'KILL',
    prepare: async (folder) => {
      cpSync(join(EXAMPLES, 'alerts.yml'), join(folder, 'alerts.yml'))
      const config = readFileSync(join(EXAMPLES, 'prometheus.yml'), 'utf8').replace('scrape_interval: 15s', 'scrape_interval: 200ms\n  scrape_timeout: 200ms\n  evaluation_interval: 200ms')
      writeFileSync(join(folder, 'prometheus.yml'), config.replace('localhost:3000', `127.0.0.1:${target}`))
    },
    command: (port, folder) => [path, `--config.file=${folder}/prometheus.yml`, `--storage.tsdb.path=${folder}/data`, `--web.listen-address=127.0.0.1:${port}`]
  })
}

async function ask<T> (port: number, path: string): Promise<T> {
  const response = await fetch(`http://127.0.0.1:${port}/api/v1/${path}`)
  const { data, error } = await response.json() as { data: T, error?: string }
  if (error !== undefined) throw new Error(`${path}: ${error}`)
  return data
}

async function found (port: number, query: string): Promise<number> {
  const { result } = await ask<{ result: Array<{ value: [number, string] }> }>(port, `query?query=${encodeURIComponent(query)}`)
  return result.filter(({ value: [, value] }) => value !== 'NaN').length
}

async function until (what: string, holds: () => Promise<boolean>): Promise<void> {
  const start = performance.now()
  while (!await holds()) {
    if (performance.now() - start > PATIENCE) throw new Error(`waited in vain for ${what}`)
    await new Promise((resolve) => { setTimeout(resolve, 100) })
  }
}

function promtool (args: string[], input = ''): void {
  const { status, stdout, stderr } = spawnSync('promtool', args, { input, encoding: 'utf8' })
  if (status !== 0) throw new Error(`promtool ${args.join(' ')}: ${stdout}${stderr}`)
  console.log(`promtool ${args.slice(0, 2).join(' ')}: nothing to complain about`)
}

async function prove (path: string): Promise<void> {
  promtool(['check', 'config', join(EXAMPLES, 'prometheus.yml')])
  const { app, port: target } = await serve()
  const server = await prometheus(path, target)
  const { port } = server
  try {
    await until('a first scrape', async () => await found(port, 'background_dead_letters_total == 0') > 0)
    await goWrong(app.background)
    away = true
    promtool(['check', 'metrics'], await promClient.register.metrics())
    await until('a second scrape', async () => await found(port, 'background_store_reachable == 0') > 0)
    const { panels } = JSON.parse(readFileSync(join(EXAMPLES, 'dashboard.json'), 'utf8')) as { panels: Array<{ title: string, targets: Array<{ expr: string }> }> }
    const queries = panels.flatMap(({ title, targets }) => targets.map(({ expr }) => ({ title, query: expr.replaceAll('$queue', '.*').replaceAll('$__rate_interval', '1m') })))
    for (const { title, query } of queries) await until(`"${title}": ${query}`, async () => await found(port, query) > 0)
    console.log(`${queries.length} queries of the dashboard find something`)
    const alerts = async (): Promise<Array<{ name: string, state: string, lastError?: string }>> => (await ask<{ groups: Array<{ rules: [] }> }>(port, 'rules')).groups.flatMap(({ rules }) => rules)
    await until('all alerts', async () => (await alerts()).every(({ state }) => state !== 'inactive'))
      .catch(async () => { throw new Error(`not raised: ${(await alerts()).filter(({ state }) => state === 'inactive').map(({ name, lastError }) => `${name} ${lastError ?? ''}`).join(', ')}`) })
    console.log(`${(await alerts()).length} alerts are raised`)
  } finally {
    await server.remove()
    const closing = app.close()
    await clock.calm.advance(20_000)
    await closing
  }
}

const path = inPath('prometheus')
if (path !== undefined) await prove(path)
else if ((process.env.BG_REQUIRE ?? '').split(',').includes('prometheus')) throw new Error('Prometheus is required and not here: apt-get install --no-install-recommends prometheus')
else console.error('SKIPPED, nothing was proven: no prometheus on this machine: apt-get install --no-install-recommends prometheus')
