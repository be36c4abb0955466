/** What the event loop feels of a thousand jobs a second, one after the other, and how long a transaction holds it. */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { Task } from '../../../lib/index.ts'
import { sqlite, type SqliteDatabase } from '../../../lib/backends/sqlite/index.ts'
import { createApp } from '../contenders/app.ts'
import { mainThread, quantile, stopwatch } from '../measure.ts'
import { freshPath, open } from './file.ts'
import { payload } from './index.ts'
import { openThread } from './thread.ts'

export type Committer = 'nobody' | 'ours' | 'a thread'

export interface DelaySettings {
  readonly committer: Committer
  readonly synchronous: 'full' | 'normal'
  /** Ms. */
  readonly ms: number
}

/** Jobs a ms. */
const PACE = 1
const KEEP = { count: 10_000_000, age: 86_400_000 }

export async function prepare ({ committer, synchronous, ms }: DelaySettings) {
  const pauses: number[] = []
  const committed = await committers[committer](synchronous, pauses)

  async function measure () {
    pauses.length = 0
    const delay = monitorEventLoopDelay({ resolution: 1 })
    delay.enable()
    const elapsed = stopwatch()
    const main = mainThread()
    const began = performance.now()
    let added = 0
    await new Promise<void>((resolve) => {
      const timer = setInterval(() => {
        const due = Math.floor((performance.now() - began) * PACE)
        while (added < due) committed.add(added++)
        if (performance.now() - began < ms) return
        clearInterval(timer)
        resolve()
      }, 1)
    })
    delay.disable()
    const { cpu } = elapsed()
    // A ms is between two looks in any case.
    const late = (q: number): number => Math.max(0, delay.percentile(q) / 1e6 - 1)
    const pause = (q: number): number => pauses.length === 0 ? 0 : quantile(pauses, q)
    return { p50: late(50), p99: late(99), longest: late(100), pause50: pause(0.5), pause99: pause(0.99), pauseMost: pause(1), cpu: cpu / added, main: main() / added }
  }

  return { measure, close: () => committed.close() }
}

type SetUp = (synchronous: 'full' | 'normal', pauses: number[]) => Promise<{ add (i: number): void, close (): Promise<void> }>

const committers: Record<Committer, SetUp> = {
  nobody: async () => ({ add () {}, async close () {} }),
  async ours (synchronous, pauses) {
    let light!: Task<{ i: number }>
    const app = await createApp({ backend: sqlite({ database: timed(open(freshPath()), pauses), synchronous }), concurrency: 100, retention: { completed: KEEP } }, (instance) => {
      light = instance.background.define('light', { attempts: 5 }, async () => {})
    })
    return { add: (i) => { void app.background.add(light, payload(i)) }, close: () => app.close() }
  },
  async 'a thread' (synchronous) {
    const thread = openThread(synchronous)
    return { add: (i) => { void thread.ask(JSON.stringify(payload(i))) }, close: () => thread.close() }
  }
}

/** Notes the ms from each BEGIN to the end of its COMMIT. */
function timed (database: SqliteDatabase, pauses: number[]): SqliteDatabase {
  let began = 0
  return {
    exec: (sql) => database.exec(sql),
    close: () => database.close(),
    prepare (sql) {
      const statement = database.prepare(sql)
      const run = statement.run.bind(statement)
      if (sql.startsWith('BEGIN')) return { run () { began = performance.now(); return run() }, get: statement.get.bind(statement), all: statement.all.bind(statement) }
      if (sql === 'COMMIT') return { run () { const done = run(); pauses.push(performance.now() - began); return done }, get: statement.get.bind(statement), all: statement.all.bind(statement) }
      return statement
    }
  }
}
