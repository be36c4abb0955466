/** Applications on one store: in this process, and in others that a test may kill. */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import Fastify, { type FastifyInstance } from 'fastify'
import { backgroundTasks, type BackgroundTasksOptions } from '../../../lib/index.ts'
import { storeAt } from './store.ts'
import { postgres } from '../../support/servers/postgres.ts'
import { redis } from '../../support/servers/redis.ts'

export interface Where {
  kind: 'redis' | 'postgres'
  url: string
  space: string
  lockDuration?: number
  callTimeout?: number
}

export interface Line extends Record<string, unknown> {
  level: number
  msg: string
}

export type Options = Omit<BackgroundTasksOptions, 'backend'>

/** Not ready yet. Its tasks are the test's. */
export async function appOn ({ kind, url, space, ...more }: Where, options: Options = {}): Promise<{ app: FastifyInstance, lines: Line[] }> {
  const lines: Line[] = []
  const stream = { write (line: string) { lines.push(JSON.parse(line) as Line) } }
  const app = Fastify({ logger: { level: 'info', stream } })
  const backend = storeAt(kind === 'redis' ? redis : postgres, url).create(space, more)
  await app.register(backgroundTasks, { backend, ...options })
  return { app, lines }
}

/** What a worker process tells of a job: it `started`, it `ended`. */
export interface Told {
  what: 'started' | 'ended' | 'aborted' | 'ready'
  id: string
  attempt: number
}

export class WorkerProcess {
  readonly child: ChildProcess
  readonly told: Told[] = []
  #heard: () => void = () => {}

  constructor (where: Where) {
    this.child = fork(new URL('worker-process.ts', import.meta.url), [JSON.stringify(where)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    this.child.on('message', (told) => {
      this.told.push(told as Told)
      this.#heard()
    })
  }

  /** Once it has told so of some job, or of this one. */
  async until (what: Told['what'], id?: string): Promise<Told> {
    for (;;) {
      const found = this.told.find((told) => told.what === what && (id === undefined || told.id === id))
      if (found !== undefined) return found
      await new Promise<void>((resolve) => { this.#heard = resolve })
    }
  }

  pause (): void { this.child.kill('SIGSTOP') }
  resume (): void { this.child.kill('SIGCONT') }

  async kill (): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    const over = once(this.child, 'exit')
    this.child.kill('SIGKILL')
    await over
  }

  async close (): Promise<void> {
    const over = once(this.child, 'exit')
    this.child.send('close')
    await over
  }
}
