/** The route of http/app.ts with its job in a SQLite file. */
import { createApp } from '../http/app.ts'
import { loaded, type Load } from '../http/keep-alive.ts'
import { openBackend } from './file.ts'

export interface DurableRouteSettings extends Load {
  readonly synchronous: 'full' | 'normal'
}

export async function prepare ({ synchronous, ...load }: DurableRouteSettings) {
  const app = await createApp('named', { backend: openBackend(synchronous), maxQueueSize: 100_000_000, retention: { completed: { count: 10_000_000 } } })
  const spend = await loaded(app, load)
  const { background } = app
  await background.onIdle()
  return {
    async measure () {
      const before = await ended()
      const spent = await spend()
      const done = await ended() - before
      const left = (await background.counts()).default
      await background.onIdle() // the others are measured meanwhile
      const all = await ended() - before
      return { ...spent, done: done / all, waiting: left?.waiting ?? 0 }
    },
    close: () => app.close()
  }

  async function ended (): Promise<number> {
    return (await background.counts()).default?.completed ?? 0
  }
}
