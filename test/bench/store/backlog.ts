/** The same job while very many others wait: each that ends is followed by one more, so that as many always wait. */
import type { Task } from '../../../lib/index.ts'
import { createApp } from '../contenders/app.ts'
import { alarm, mainThread, stopwatch } from '../measure.ts'
import { freshPath, open, openBackend } from './file.ts'
import { payload } from './index.ts'

export interface BacklogSettings {
  readonly waiting: number
  /** Jobs. */
  readonly warmUp: number
  /** Ms. */
  readonly enough: number
}

const IN_FLIGHT = 100

export async function prepare ({ waiting, warmUp, enough }: BacklogSettings) {
  const path = freshPath()
  const few = await start(path)
  await few.background.pause()
  await few.add(1_000)
  await few.app.close()
  multiply(path, waiting / 1_000)
  const { background, add, flow } = await start(path)

  async function measure (did = 0, over = alarm(enough)) {
    const elapsed = stopwatch()
    const main = mainThread()
    const ended = await flow((n) => n < did || !over())
    const { cpu, wall } = elapsed()
    const spent = { cpu: cpu / ended, main: main() / ended, perSecond: ended / wall * 1e6 }
    const left = (await background.counts()).default?.waiting ?? 0
    if (left < waiting) await add(waiting - left) // those that ended as it was paused
    return { ...spent, waiting: left }
  }

  await measure(warmUp, alarm(0))
  return { measure: () => measure() }
}

async function start (path: string) {
  const backend = openBackend('normal', path)
  let light!: Task<{ i: number }>
  let ended = (): void => {}
  const settle = backend.settle.bind(backend)
  backend.settle = async (attempt, outcome) => {
    await settle(attempt, outcome)
    ended()
  }
  const app = await createApp({ backend, concurrency: IN_FLIGHT, retention: { completed: { count: 10_000_000 } } }, (instance) => {
    light = instance.background.define('light', { attempts: 5 }, async () => {})
  })
  const { background } = app
  await background.pause()
  const add = (n: number): Promise<unknown> => background.addBulk(Array.from({ length: n }, (_, i) => ({ name: light.name, payload: payload(i) })))

  /** Until `more` says no; answers how many have ended. */
  async function flow (more: (ended: number) => boolean): Promise<number> {
    let n = 0
    await new Promise<void>((resolve) => {
      ended = () => {
        if (++n % IN_FLIGHT !== 0) return
        if (more(n)) void add(IN_FLIGHT)
        else resolve()
      }
      void background.resume()
    })
    ended = () => {}
    await background.pause()
    return n
  }

  return { app, background, add, flow }
}

/** So many times as many of what waits in a file that nobody uses: a million would take long to add one by one. */
function multiply (path: string, times: number): void {
  const database = open(path)
  const columns = (database.prepare("SELECT name FROM pragma_table_info('background_jobs')").all() as Array<{ name: string }>).map(({ name }) => name).filter((name) => name !== 'seq' && name !== 'id').join(', ')
  const copy = database.prepare(`INSERT INTO background_jobs (id, ${columns}) SELECT lower(hex(randomblob(16))), ${columns} FROM background_jobs LIMIT 1000`)
  database.exec('BEGIN')
  for (let made = 1; made < times; made++) copy.run()
  database.prepare('UPDATE background_counts SET n = n * ?').run(times)
  database.exec('COMMIT')
  database.close()
}
