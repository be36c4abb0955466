/**
 * Servers for tests: the one an environment variable names, else the one on the standard port, else one of the tests'
 * own. Where there is none the test is skipped, and says what to install; with `BG_REQUIRE=redis,postgres` it fails.
 */
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import type { OwnServer } from './process.ts'

export interface Kind {
  readonly name: 'redis' | 'postgres'
  readonly variable: 'REDIS_URL' | 'DATABASE_URL'
  /** What to do on a machine without it. */
  readonly install: string
  readonly urlOf: (port: number) => string
  /** The one on the standard port. */
  readonly findRunning: () => Promise<string | undefined>
  readonly start: () => Promise<OwnServer | undefined>
}

export interface Found {
  readonly url: string
  /** Stops it, if it is ours. */
  readonly release: () => Promise<void>
}

export interface Owned extends Found {
  readonly server: OwnServer
}

/** What to run the tests on, or the reason why they are skipped. */
export async function findServer (kind: Kind): Promise<Found | string> {
  const running = process.env[kind.variable] ?? await kind.findRunning()
  if (running !== undefined) return { url: running, release: async () => {} }
  return startServer(kind)
}

/** One that the test may stop and pause. */
export async function startServer (kind: Kind): Promise<Owned | string> {
  const server = await kind.start()
  if (server !== undefined) return { server, url: kind.urlOf(server.port), release: () => server.remove() }
  const missing = `no ${kind.name} server on this machine: ${kind.install}, or set ${kind.variable}`
  if ((process.env.BG_REQUIRE ?? '').split(',').includes(kind.name)) throw new Error(missing)
  console.error(`SKIPPED: ${missing}`)
  return missing
}

export function inPath (program: string): string | undefined {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(folder, program)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch { /* not in this folder */ }
  }
  return undefined
}
