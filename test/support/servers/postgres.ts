/** PostgreSQL for tests: the one that is named, or one of our own. */
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { inPath, type Kind } from './find.ts'
import { OwnServer, PASSWORD, type AsNobody, type Program } from './process.ts'

/** Debian keeps its programs out of PATH. */
const DEBIAN = '/usr/lib/postgresql'

function findPrograms (): string | undefined {
  const path = inPath('initdb')
  if (path !== undefined) return join(path, '..')
  try {
    const [newest] = readdirSync(DEBIAN).sort((a, b) => Number(b) - Number(a))
    return newest === undefined ? undefined : join(DEBIAN, newest, 'bin')
  } catch {
    return undefined
  }
}

function program (programs: string): Program {
  return {
    command: (port, folder) => [join(programs, 'postgres'), '-D', join(folder, 'data'), '-p', String(port), '-k', folder,
      '-c', 'listen_addresses=127.0.0.1', '-c', 'fsync=off', '-c', 'max_connections=200'],
    signal: 'QUIT',
    // The eighth line tells whether it has recovered from its last end.
    isReady: (folder) => readFileSync(join(folder, 'data', 'postmaster.pid'), 'utf8').split('\n')[7]?.startsWith('ready') === true,
    refusesRoot: true,
    async prepare (folder: string, asNobody: AsNobody) {
      const secret = join(folder, 'password')
      await writeFile(secret, PASSWORD)
      const args = ['-D', join(folder, 'data'), '-U', 'postgres', '-A', 'password', '--pwfile', secret, '-E', 'UTF8', '--no-locale', '--no-sync']
      await promisify(execFile)(join(programs, 'initdb'), args, { cwd: folder, ...asNobody })
    }
  }
}

export const postgres: Kind = {
  name: 'postgres',
  variable: 'DATABASE_URL',
  install: 'apt-get install postgresql',
  urlOf: (port) => `postgres://postgres:${PASSWORD}@127.0.0.1:${port}/postgres`,
  // One on the standard port would ask for a password that nobody gave: it is used only when DATABASE_URL names it.
  async findRunning () { return undefined },
  async start () {
    const programs = findPrograms()
    return programs === undefined ? undefined : OwnServer.create(program(programs))
  }
}
