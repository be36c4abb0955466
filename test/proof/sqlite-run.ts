/** Kills services on a SQLite file at random points, under load, and adds up what became of the jobs they had accepted. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { extname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { openRaw } from '../support/sqlite.ts'
import { chance } from './chance.ts'

export interface Plan {
  readonly rounds: number
  readonly seed: number
  readonly synchronous: 'full' | 'normal'
  /** What is wrong with the services; empty: nothing. */
  readonly broken: '' | 'acknowledges before it writes' | 'lets stale owners write'
  /** Every so many rounds, a service is held while others take it for dead, and then let go on. */
  readonly holdEvery: number
}

export interface Verdict {
  /** Answers below 300 told of these. */
  readonly accepted: number
  readonly completed: number
  readonly failed: number
  readonly runs: number
  /** Attempts that a kill cut off. */
  readonly cutOff: number
  readonly kills: number
  readonly faults: string[]
}

export interface Service {
  readonly child: ChildProcess
  readonly port: number
}

const CLIENTS = 6
/** Ms from the first answer to the kill, at most. */
const LONGEST_LIFE = 120
/** Ms that the attempts of a held service take, if they are not held. */
const LONG = 150

export async function killRounds (plan: Plan): Promise<Verdict> {
  const folder = mkdtempSync(join(tmpdir(), 'kills-'))
  const file = join(folder, 'jobs.db')
  const runs = join(folder, 'runs')
  const random = chance(plan.seed * 7919)
  const accepted = new Set<string>()
  const open = new Set<ChildProcess>()
  const start = (): Promise<Service> => launch(open, { FILE: file, RUNS: runs, SYNCHRONOUS: plan.synchronous, BROKEN: plan.broken })
  let kills = 0
  try {
    // One stays while the other is killed, so that both have each other's jobs to take care of.
    let services = await Promise.all([start(), start()])
    for (let round = 0; round < plan.rounds; round++) {
      const stop = new AbortController()
      const clients = Promise.all(Array.from({ length: CLIENTS }, (_, n) => keepAsking(services[n % 2] as Service, random, accepted, stop.signal)))
      await pause(random() * LONGEST_LIFE)
      const heir = round % plan.holdEvery === plan.holdEvery - 1 ? await holdAndBury(services[1], file, start, accepted) : undefined
      const victim = services[0]
      victim.child.kill('SIGKILL')
      kills++
      stop.abort()
      await Promise.all([clients, gone(victim.child)])
      services = [services[1], heir ?? await start()]
    }
    await settled(services[0], plan.broken === '' ? 600 : 20)
    for (const { child } of services) child.kill('SIGKILL')
    return judge(file, runs, accepted, kills)
  } finally {
    const left = [...open]
    for (const child of left) child.kill('SIGKILL')
    await Promise.all(left.map(gone))
    rmSync(folder, { recursive: true, force: true })
  }
}

/** @param complaints where what it says on stderr goes */
export async function launch (open: Set<ChildProcess>, more: Record<string, string>, complaints: 'inherit' | 'ignore' = 'inherit'): Promise<Service> {
  const program = fileURLToPath(new URL(`sqlite-child${extname(import.meta.url)}`, import.meta.url))
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(NODE_OPTIONS|NODE_V8_COVERAGE|TAP|_TAPJS)/.test(name)))
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', program], { env: { ...env, ...more }, stdio: ['ignore', 'pipe', complaints] })
  open.add(child)
  child.once('exit', () => { open.delete(child) })
  let said = ''
  const port = await new Promise<number>((resolve, reject) => {
    child.once('exit', () => { reject(new Error(`a service did not start: ${said}`)) })
    child.stdout.on('data', (chunk: Buffer) => {
      said += String(chunk)
      const found = /listening at .*:(\d+)/.exec(said)
      if (found !== null) resolve(Number(found[1]))
    })
  })
  return { child, port }
}

export async function gone (child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
}

async function keepAsking (service: Service, random: () => number, accepted: Set<string>, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const path = ['/one', '/three', '/added'][Math.floor(random() * 3)] as string
    const answer = await ask(service.port, path, { n: Math.floor(random() * 1_000), pause: Math.floor(random() * 8) })
    if (answer === undefined) return
    for (const id of answer.ids) accepted.add(id)
  }
}

/** The ids of an answer below 300; nothing when there was none. */
export function ask (port: number, path: string, body: object): Promise<{ ids: string[] } | undefined> {
  return new Promise((resolve) => {
    const request = http.request({ host: '127.0.0.1', port, path, method: 'POST', agent: false, headers: { 'content-type': 'application/json' } }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => { text += chunk })
      response.on('end', () => {
        const { jobId, ids = [jobId] } = JSON.parse(text) as { jobId?: string, ids?: string[] }
        resolve(response.statusCode !== undefined && response.statusCode < 300 ? { ids: ids as string[] } : undefined)
      })
      response.on('error', () => { resolve(undefined) })
      response.on('aborted', () => { resolve(undefined) })
    })
    request.on('error', () => { resolve(undefined) })
    request.end(JSON.stringify(body))
  })
}

/**
 * The service stands still while another starts and takes over the jobs it has in hand; then it goes on, and settles what
 * is no longer its own. Answers the other.
 */
async function holdAndBury ({ child, port }: Service, file: string, start: () => Promise<Service>, accepted: Set<string>): Promise<Service> {
  for (let n = 1; n <= 4; n++) {
    for (const id of (await ask(port, '/added', { n, pause: LONG }))?.ids ?? []) accepted.add(id)
  }
  const raw = openRaw(file)
  raw.exec('PRAGMA busy_timeout = 50')
  const bury = raw.prepare("UPDATE background_owners SET boot = 'an earlier one' WHERE pid = ?")
  for (let tries = 0; tries < 100; tries++) {
    child.kill('SIGSTOP')
    try {
      bury.run(child.pid)
      break
    } catch {
      // It stands still in the middle of a transaction, and holds the file.
      child.kill('SIGCONT')
      await pause(20)
    }
  }
  raw.close()
  const heir = await start()
  await pause(2 * LONG) // its attempts at the same jobs have ended
  child.kill('SIGCONT')
  await pause(50)
  return heir
}

/** Until nothing is left to do, as far as it says so: broken ones may count wrong. */
export async function settled (service: Service, looks: number): Promise<void> {
  for (let tries = 0; tries < looks; tries++) {
    const queues = await health(service.port)
    if (Object.values(queues).every(({ pending, waiting, delayed, active }) => pending + waiting + delayed + active === 0)) return
    await pause(100)
  }
}

function health (port: number): Promise<Record<string, Record<'pending' | 'waiting' | 'delayed' | 'active', number>>> {
  return new Promise((resolve, reject) => {
    http.get({ host: '127.0.0.1', port, path: '/health/jobs', agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => { text += chunk })
      response.on('end', () => { resolve((JSON.parse(text) as { queues: Record<string, Record<'pending', number>> }).queues as never) })
    }).on('error', reject)
  })
}

function judge (file: string, runsFile: string, accepted: ReadonlySet<string>, kills: number): Verdict {
  const raw = openRaw(file)
  const rows = raw.prepare('SELECT id, state, attempts_made, result, history FROM background_jobs').all() as Array<{ id: string, state: string, attempts_made: number, result: string | null, history: string | null }>
  const integrity = raw.prepare('PRAGMA integrity_check').get()?.['integrity_check']
  const counts = raw.prepare("SELECT what, sum(n) AS n FROM background_counts WHERE queue = 'default' GROUP BY what").all()
  raw.close()
  const runs = new Map<string, number[]>()
  const lines = readFileSync(runsFile, 'utf8').split('\n').filter((line) => line !== '')
  for (const line of lines) {
    const [id, attempt] = line.split(' ') as [string, string]
    runs.set(id, [...runs.get(id) ?? [], Number(attempt)])
  }
  const faults: string[] = []
  if (integrity !== 'ok') faults.push(`the file is not sound: ${String(integrity)}`)
  const known = new Set(rows.map(({ id }) => id))
  const lost = [...accepted].filter((id) => !known.has(id))
  if (lost.length > 0) faults.push(`${lost.length} accepted jobs are not in the file`)
  let cutOff = 0
  const sums: Record<string, number> = {}
  for (const row of rows) {
    const failures = row.history === null ? [] : JSON.parse(row.history) as Array<{ error: { code: string | null } }>
    cutOff += failures.filter(({ error }) => error.code === 'FST_BG_STALLED').length
    sums[row.state] = (sums[row.state] ?? 0) + 1
    faults.push(...faultsOf(row, failures.length, runs.get(row.id) ?? []))
  }
  for (const { what, n } of counts) if (isState(String(what)) && (sums[String(what)] ?? 0) !== n) faults.push(`${String(what)}: ${String(n)} counted, ${sums[String(what)] ?? 0} there`)
  return { accepted: accepted.size, completed: sums['completed'] ?? 0, failed: sums['failed'] ?? 0, runs: lines.length, cutOff, kills, faults }
}

function isState (what: string): boolean {
  return ['pending', 'waiting', 'delayed', 'active', 'completed', 'failed', 'cancelled'].includes(what)
}

function faultsOf (row: { id: string, state: string, attempts_made: number, result: string | null }, failures: number, runs: number[]): string[] {
  const faults: string[] = []
  if (row.state !== 'completed' && row.state !== 'failed') faults.push(`${row.id} is ${row.state}`)
  if (new Set(runs).size < runs.length) faults.push(`${row.id}: an attempt ran twice (${runs.join(', ')})`)
  if (runs.some((attempt) => attempt > row.attempts_made)) faults.push(`${row.id}: attempt ${Math.max(...runs)} ran, ${row.attempts_made} are recorded`)
  if (failures < Math.min(runs.length - 1, 20)) faults.push(`${row.id}: ${runs.length} runs, ${failures} of them in its history`)
  const result = row.result === null ? undefined : JSON.parse(row.result) as { attempt: number }
  if (row.state === 'completed' && result?.attempt !== row.attempts_made) faults.push(`${row.id}: attempt ${result?.attempt} completed it, ${row.attempts_made} owned it`)
  return faults
}

export function pause (ms: number): Promise<void> {
  return new Promise((resolve) => { setTimeout(resolve, ms) })
}
