/** The example of a deployment: what compose.yaml and kubernetes.yaml say is what the program reads, and three processes work together. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import t from 'tap'
import { eventually } from '../support/real-time.ts'
import { startServer } from '../support/servers/find.ts'
import { redis } from '../support/servers/redis.ts'

const folder = resolve(import.meta.dirname, '../../examples/deployment')
const [program, compose, kubernetes, image] = ['app.js', 'compose.yaml', 'kubernetes.yaml', 'Dockerfile'].map((file) => readFileSync(join(folder, file), 'utf8')) as [string, string, string, string]
const found = (text: string, pattern: RegExp): string[] => [...new Set(Array.from(text.matchAll(pattern), ([, name]) => name as string))].sort()

t.test('what the files name is what the program reads', async (t) => {
  const [, read = ''] = /const \{ (.*) \} = process\.env/.exec(program) ?? []
  const names = read.split(', ').map((part) => part.replace(/ = .*/, ''))
  for (const text of [found(compose, /^ {6}([A-Z]+): /gm), found(kubernetes, /name: ([A-Z]+),/g)]) {
    t.strictSame(text, ['ROLE', 'STORE'])
    t.ok(text.every((name) => names.includes(name)))
  }
  t.strictSame(found(compose, /ROLE: (\w+)/g), ['producer', 'worker'])
  t.strictSame(found(kubernetes, /name: ROLE, value: (\w+)/g), ['producer', 'worker'])
  const [port] = found(read, /PORT = '(\d+)'/g)
  t.strictSame([...found(compose, /ports: \['\d+:(\d+)'\]/g), ...found(kubernetes, /(?:containerPort|port|targetPort): (\d{4})/g)], [port, port])
  t.strictSame(found(image, /CMD \["node", "(.*)"\]/g), ['app.js'])
  const [drain] = found(program, /drainTimeout: (\d+)_000/g)
  for (const grace of [...found(compose, /stop_grace_period: (\d+)s/g), ...found(kubernetes, /terminationGracePeriodSeconds: (\d+)/g)]) t.ok(Number(grace) >= Number(drain) + 5)
})

interface Started {
  readonly origin: string
  readonly lines: Array<{ msg?: string }>
  /** Its exit code, after SIGTERM. */
  stop (): Promise<number | null>
}

t.test('a web and two workers: 202, a state that each of them tells, one job for a CronJob that asks twice, a stop that loses nothing', async (t) => {
  const server = await startServer(redis)
  if (typeof server === 'string') return t.plan(0, server)
  const children: ChildProcess[] = []
  t.teardown(async () => {
    for (const child of children) child.kill('SIGKILL')
    await server.release()
  })
  const start = async (ROLE: string): Promise<Started> => {
    const child = spawn(process.execPath, ['app.js'], { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'], env: { PATH: process.env.PATH, ROLE, STORE: server.url, PORT: '0' } })
    children.push(child)
    const lines: Started['lines'] = []
    createInterface(child.stdout).on('line', (line) => { lines.push(JSON.parse(line) as { msg?: string }) })
    const origin = (): string | undefined => lines.map(({ msg }) => /listening at (http:\/\/127\.0\.0\.1:\d+)/.exec(msg ?? '')?.[1]).find((url) => url !== undefined)
    await eventually(origin, `a ${ROLE} that listens`, 60_000)
    return {
      origin: origin() as string,
      lines,
      async stop () {
        const ended = once(child, 'exit') as Promise<[number | null]>
        child.kill('SIGTERM')
        return (await ended)[0]
      }
    }
  }
  const [web, first, second] = await Promise.all(['producer', 'worker', 'worker'].map(start)) as [Started, Started, Started]
  const post = (to: Started, key?: string): Promise<Response> => fetch(`${to.origin}/reports`, {
    method: 'POST', body: '{"month":"2026-11"}', headers: { 'content-type': 'application/json', connection: 'close', ...(key !== undefined && { 'idempotency-key': key }) }
  })
  t.equal((await post(first)).status, 404)
  const answers = [...await Promise.all([post(web), post(web), post(web)]), await post(web, 'report-2026-11'), await post(web, 'report-2026-11')]
  t.strictSame(answers.map(({ status }) => status), [202, 202, 202, 202, 202])
  const jobs = await Promise.all(answers.map(async (answer) => await answer.json() as { jobId: string, statusUrl: string }))
  t.equal(new Set(jobs.map(({ jobId }) => jobId)).size, 4)
  for (const [at, { jobId, statusUrl }] of jobs.entries()) {
    const teller = [web, first, second][at % 3] as Started
    let state: unknown
    await eventually(async () => {
      state = await (await fetch(teller.origin + statusUrl, { headers: { connection: 'close' } })).json()
      return (state as { state: string }).state === 'completed'
    }, `the end of job ${jobId}`, 60_000)
    t.match(state, { jobId, state: 'completed', result: { report: '2026-11.pdf', key: jobId } })
  }
  const ended = (of: Started): number => of.lines.filter(({ msg }) => msg === 'job completed').length
  t.strictSame([ended(web), ended(first) + ended(second)], [0, 4])
  t.strictSame(await Promise.all([web, first, second].map((one) => one.stop())), [0, 0, 0])
})
