/** Applications on one store: in this process, and in others that a test may kill. */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { request } from 'node:http'
import Fastify, { type FastifyInstance } from 'fastify'
import type { BullmqOptions } from '../../../lib/backends/bullmq/index.ts'
import { backgroundTasks, type BackgroundTasksOptions } from '../../../lib/index.ts'
import type { Backend } from '../../../lib/backend.ts'
import type { Line } from '../../support/harness.ts'

/** Not ready yet. Its tasks are the test's. */
export async function appOn (backend: Backend, options: Omit<BackgroundTasksOptions, 'backend'> = {}): Promise<{ app: FastifyInstance, lines: Line[] }> {
  const lines: Line[] = []
  const stream = { write (line: string) { lines.push(JSON.parse(line) as Line) } }
  const app = Fastify({ logger: { level: 'trace', stream } })
  await app.register(backgroundTasks, { backend, ...options })
  return { app, lines }
}

/** Milliseconds that a staged job starts later than `maxHold`, if nobody releases it. */
const MARGIN = 10_000

/** A process that takes a job for a response and is killed before the response goes out. Workers may have the job `after` ms later. */
export async function dieAnswering (options: BullmqOptions, after: number): Promise<void> {
  const args = [options, MARGIN, after].map((value) => JSON.stringify(value))
  const child = fork(new URL('dying-producer.js', import.meta.url), args, { execArgv: [], stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const over = once(child, 'exit')
  const [port] = await once(child, 'message') as [number]
  const asking = request({ port, method: 'POST', agent: false }).end()
  const [error] = await once(asking, 'error') as [Error & { code?: string }]
  if (error.code !== 'ECONNRESET') throw error
  const [, signal] = await over as [number | null, string | null]
  if (signal !== 'SIGKILL') throw new Error(`it ended by ${signal}`)
}

/** What a worker tells of a job. */
interface Told {
  what: 'started' | 'ended' | 'aborted' | 'ready'
  id: string
  pid: number
}

/** Processes that do the same jobs. */
export class Workers {
  readonly told: Told[] = []
  readonly #children: ChildProcess[]
  #heard: () => void = () => {}

  constructor (options: BullmqOptions, count: number) {
    const url = new URL('worker-process.js', import.meta.url)
    this.#children = Array.from({ length: count }, () => fork(url, [JSON.stringify(options)], { execArgv: [], stdio: ['ignore', 'inherit', 'inherit', 'ipc'] }))
    for (const child of this.#children) {
      child.on('message', (told) => {
        this.told.push(told as Told)
        this.#heard()
      })
    }
  }

  /** Resolves when so many were told. */
  async count (what: Told['what'], count: number): Promise<void> {
    while (this.told.filter((told) => told.what === what).length < count) await new Promise<void>((resolve) => { this.#heard = resolve })
  }

  /** Answers who told so, of this job; the first one that is not `but`. */
  async until (what: Told['what'], id: string, but?: number): Promise<number> {
    for (;;) {
      const found = this.told.find((told) => told.what === what && told.id === id && told.pid !== but)
      if (found !== undefined) return found.pid
      await new Promise<void>((resolve) => { this.#heard = resolve })
    }
  }

  async ready (): Promise<void> {
    await this.count('ready', this.#children.length)
  }

  /** Jobs of this id, or of this gate, may end: in all processes, or in one. */
  letGo (id: string, pid?: number): void {
    for (const child of this.#children) if (child.connected && (pid ?? child.pid) === child.pid) child.send({ letGo: id })
  }

  signal (pid: number, signal: 'SIGSTOP' | 'SIGCONT' | 'SIGKILL'): void {
    this.#children.find((child) => child.pid === pid)?.kill(signal)
  }

  /** Those that were killed have ended already. */
  async close (): Promise<void> {
    await Promise.all(this.#children.map(async (child) => {
      if (child.exitCode !== null || child.signalCode !== null) return
      const over = once(child, 'exit')
      child.send({})
      await over
    }))
  }
}
