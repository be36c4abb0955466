/**
 * Runs a group. Each entry has a process of its own, which warms up and then waits; in each round all are measured, one
 * after the other (A B C A B C …). What is compared was measured within seconds: a machine's pace changes by the minute.
 */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import type { Question } from './child.ts'
import type { Group } from './plan.ts'
import type { Share } from './profile.ts'
import type { Result, Settings } from './scenarios/index.ts'

export interface Row {
  readonly name: string
  /** By the round. */
  readonly results: Result[]
  /** Why there are no more of them. */
  fault: string | undefined
}

const HERE = new URL('../../', import.meta.url)
/** Ms; a child that takes longer is ended, and its number is missing. */
const LONGEST_ANSWER = 60_000
/** Ms. */
const PROFILED = 2_000

/** @param deadline `performance.now()` after which no round is begun: the group then has fewer */
export async function runGroup ({ title, rounds, atLeastOnce = false, entries }: Group, deadline: number, tell: (text: string) => void): Promise<Row[]> {
  const rows: Row[] = entries.map(({ name }) => ({ name, results: [], fault: undefined }))
  const children = new Map<Row, Child>()
  for (const [at, { name, settings, build }] of entries.entries()) {
    if (performance.now() >= deadline && !atLeastOnce) break
    tell(`${title}: warms up ${name}`)
    const row = rows[at] as Row
    await guard(row, async () => { children.set(row, await Child.start(settings, build)) })
  }
  for (let round = 1; round <= rounds && (performance.now() < deadline || (atLeastOnce && round === 1)); round++) {
    // Each round begins with another: whoever follows a heavy neighbour should not be the same each time.
    const order = [...children]
    order.push(...order.splice(0, round % order.length))
    for (const [row, child] of order) {
      if (row.fault !== undefined) continue
      tell(`${title}: round ${round} of ${rounds}, ${row.name}`)
      await guard(row, async () => { row.results.push(await child.measure()) })
    }
  }
  for (const child of children.values()) await child.stop()
  return rows
}

async function guard (row: Row, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    row.fault = (error as Error).message
  }
}

/** Where the group's own entry spends its time. */
export async function profileGroup ({ entries, profiled }: Group): Promise<Share[]> {
  const settings = entries.find(({ name }) => name === profiled)?.settings
  if (settings === undefined) throw new Error(`no entry "${profiled}"`)
  const child = await Child.start(settings)
  try {
    return await child.profile(PROFILED)
  } finally {
    await child.stop()
  }
}

class Child {
  readonly #process: ChildProcess

  constructor (process: ChildProcess) {
    this.#process = process
  }

  /** Resolves when it is warm. */
  static async start (settings: Settings, build: URL = HERE): Promise<Child> {
    const child = new Child(fork(new URL('test/bench/child.js', build), [JSON.stringify(settings)], { execArgv: ['--expose-gc'] }))
    await child.#answer()
    return child
  }

  measure (): Promise<Result> {
    return this.#ask('measure') as Promise<Result>
  }

  profile (ms: number): Promise<Share[]> {
    return this.#ask({ profile: ms }) as Promise<Share[]>
  }

  #ask (question: Question): Promise<unknown> {
    const answer = this.#answer()
    this.#process.send(question, () => {}) // if it has gone, so the answer says
    return answer
  }

  /** Resolves when it has ended. */
  async stop (): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return
    this.#process.disconnect()
    await once(this.#process, 'exit')
  }

  #answer (): Promise<unknown> {
    const child = this.#process
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => { child.kill('SIGKILL') }, LONGEST_ANSWER)
      const heard = (message: unknown): void => {
        child.off('exit', gone)
        clearTimeout(timer)
        resolve(message)
      }
      const gone = (): void => {
        child.off('message', heard)
        clearTimeout(timer)
        reject(new Error(`ended without a result: ${child.signalCode ?? `code ${child.exitCode}`}`))
      }
      if (child.exitCode !== null || child.signalCode !== null) return gone()
      child.once('message', heard)
      child.once('exit', gone)
    })
  }
}
