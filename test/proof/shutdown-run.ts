/** Starts a service, keeps it busy, signals it, and adds up its ledger. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { extname, join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { typescriptLoader } from '../support/loaders.ts'
import { freePort } from '../support/servers/process.ts'
import { chance } from './chance.ts'
import type { Scenario } from './shutdown-app.ts'
import { start, type Load } from './shutdown-clients.ts'

export interface Report {
  accepted: number
  done: number
  dead: number
  named: number
  refused: number
  /** Neither done, dead nor named; with more than one end; ended but never accepted; accepted without a word. */
  lost: string[]
  twice: string[]
  unknown: string[]
  unsaid: number
  /** Codes of refusals that a shutdown or a full queue does not explain. */
  oddRefusals: string[]
  /** Jobs in the log line that names them. */
  counted: number
  /** When the last job was named, ms since the closing began. */
  namedAt: number
  /** From the first signal to the end of the process, ms. */
  took: number
  code: number | null
  signal: NodeJS.Signals | null
  /** Answers below 300 that clients have seen. */
  answered: number
  output: string
}

/** A child that is still there then has missed every deadline. */
const LONGEST = 30_000

/** Path of fastify-cli's program, where it is installed, or given by FASTIFY_CLI. */
export function findFastifyCli (): string | undefined {
  const given = process.env['FASTIFY_CLI']
  if (given !== undefined) return given
  try {
    return createRequire(import.meta.url).resolve('fastify-cli/cli.js')
  } catch {
    return undefined
  }
}

/** A scenario drawn from its seed. */
export function draw (seed: number, how: Scenario['how']): Scenario {
  const random = chance(seed * 7919)
  const one = (...choices: number[]): number => choices[Math.floor(random() * choices.length)] as number
  const drainTimeout = one(150, 300, 600)
  const abortGrace = one(50, 150)
  return {
    seed, how, drainTimeout, abortGrace,
    // fastify-cli speaks HTTP/2 only with options of its own.
    http2: random() < 0.35 && how === 'close-with-grace',
    delay: drainTimeout + abortGrace + one(300, 800),
    twice: random() < 0.2,
    stuck: one(0, 0, 1, 3),
    streams: one(0, 0, 1, 2),
    clients: one(2, 5, 10),
    answers: one(5, 40, 150)
  }
}

export async function run (scenario: Scenario): Promise<Report> {
  const folder = mkdtempSync(join(tmpdir(), 'shutdown-'))
  const ledger = openSync(join(folder, 'ledger'), 'a')
  let output = ''
  let load: Load | undefined
  const child = await launch(scenario, ledger)
  const killer = setTimeout(() => child.kill('SIGKILL'), LONGEST)
  try {
    const exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
    const closed = once(child, 'close')
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk: Buffer) => { output += String(chunk) })
    const says = (text: RegExp): Promise<RegExpExecArray | null> => new Promise((resolve) => {
      child.stdout?.on('data', () => {
        const found = text.exec(output)
        if (found !== null) resolve(found)
      })
      void exited.then(() => { resolve(null) })
    })
    const closing = says(/^closing$/m)
    const origin = (await says(/istening at (http:\/\/127\.0\.0\.1:\d+)/))?.[1]
    if (origin === undefined) throw new Error(`the child did not start: ${output}`)
    load = start(origin, scenario)
    await Promise.race([load.answered, exited])
    const signalled = performance.now()
    child.kill('SIGTERM')
    if (scenario.twice) {
      await closing
      child.kill('SIGTERM')
    }
    const [code, signal] = await exited
    const took = performance.now() - signalled
    await closed
    return { ...addUp(readFileSync(join(folder, 'ledger'), 'utf8'), output), took, code, signal, answered: load.accepted(), output }
  } finally {
    clearTimeout(killer)
    load?.stop()
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
    closeSync(ledger)
    rmSync(folder, { recursive: true })
  }
}

async function launch (scenario: Scenario, ledger: number): Promise<ChildProcess> {
  const file = (name: string): string => fileURLToPath(new URL(`./${name}${extname(import.meta.url)}`, import.meta.url))
  const env = { ...process.env, SCENARIO: JSON.stringify(scenario), NODE_OPTIONS: '' }
  const stdio = ['ignore', 'pipe', 'pipe', ledger] as const
  if (scenario.how === 'close-with-grace') return spawn(process.execPath, [...typescriptLoader, file('shutdown-child')], { env, stdio: [...stdio] })
  const cli = findFastifyCli()
  if (cli === undefined) throw new Error('fastify-cli is not installed; FASTIFY_CLI may name its cli.js')
  const args = ['start', '--log-level', 'info', '--address', '127.0.0.1', '--port', String(await freePort()), // 0 would mean its default
    '--close-grace-delay', String(scenario.delay), file('shutdown-app')]
  return spawn(process.execPath, [...typescriptLoader, cli, ...args], { env, stdio: [...stdio] })
}

function addUp (ledger: string, output: string): Omit<Report, 'took' | 'code' | 'signal' | 'answered' | 'output'> {
  const ends = new Map<string, string[]>()
  const open = new Set<string>()
  const unknown: string[] = []
  const oddRefusals: string[] = []
  const sum = { accepted: 0, done: 0, dead: 0, named: 0, refused: 0 }
  const lines = ledger.split('\n').filter((line) => line !== '').map((line) => line.split(' ') as [string, string, string])
  for (const [entry, n, rest] of lines) {
    if (entry === 'offered') open.add(n)
    else open.delete(n)
    if (entry === 'accepted') ends.set(rest, [])
    if (entry === 'refused' && !['FST_BG_CLOSING', 'FST_BG_QUEUE_FULL'].includes(rest)) oddRefusals.push(rest)
    if (entry in sum) sum[entry as keyof typeof sum]++
  }
  for (const [entry, id] of lines) {
    if (entry !== 'done' && entry !== 'dead' && entry !== 'named') continue
    const ended = ends.get(id)
    if (ended === undefined) unknown.push(`${entry} ${id}`)
    else ended.push(entry)
  }
  const namedAt = Math.max(0, ...lines.filter(([entry]) => entry === 'named').map(([, , at]) => Number(at)))
  const counted = [...output.matchAll(/"count":(\d+),[^\n]*"msg":"shutdown left jobs undone"/g)].reduce((all, [, count]) => all + Number(count), 0)
  const of = (fits: (ended: string[]) => boolean): string[] => [...ends].filter(([, ended]) => fits(ended)).map(([id, ended]) => `${id} ${ended.join('+')}`)
  return { ...sum, lost: of((ended) => ended.length === 0), twice: of((ended) => ended.length > 1), unknown, unsaid: open.size, oddRefusals, counted, namedAt }
}

/** What is wrong with a report; nothing, when all is well. */
export function faults (scenario: Scenario, report: Report, margin: number): string[] {
  const found: string[] = []
  const { accepted, done, dead, named, counted } = report
  const { lost, twice, unknown, unsaid, oddRefusals } = report
  if (accepted !== done + dead + named) found.push(`accepted ${accepted}, done ${done} + dead ${dead} + named ${named}`)
  if (lost.length > 0) found.push(`lost ${lost.slice(0, 3).join(', ')}`)
  if (twice.length > 0) found.push(`ended twice ${twice.slice(0, 3).join(', ')}`)
  if (unknown.length > 0) found.push(`never accepted ${unknown.slice(0, 3).join(', ')}`)
  if (unsaid > 0) found.push(`${unsaid} offered, then nothing`)
  if (oddRefusals.length > 0) found.push(`refused with ${oddRefusals.slice(0, 3).join(', ')}`)
  if (counted !== named) found.push(`the log counts ${counted}, onUnfinished names ${named}`)
  if (report.namedAt > scenario.drainTimeout + scenario.abortGrace + margin) found.push(`named after ${report.namedAt} ms, the deadline is ${scenario.drainTimeout} + ${scenario.abortGrace}`)
  if (report.answered > accepted) found.push(`clients were told of ${report.answered}`)
  if (accepted === 0) found.push('nothing was accepted')
  if (report.took > scenario.delay + margin) found.push(`took ${Math.round(report.took)} ms, its supervisor kills at ${scenario.delay}`)
  if (report.signal !== null) found.push(`killed by ${report.signal}`)
  if (report.code !== 0 && report.code !== 1) found.push(`exit code ${report.code}`)
  return found
}
