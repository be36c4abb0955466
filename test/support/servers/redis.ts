/** Redis or Valkey for tests: the one that is there, or one of our own. */
import { OwnServer, PASSWORD, answers, type Program } from './process.ts'
import { inPath, type Kind } from './find.ts'

const STANDARD_PORT = 6_379

function program (path: string): Program {
  return {
    command: (port, folder) => [path, '--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--appendonly', 'yes', '--save', '',
      '--maxmemory-policy', 'noeviction', '--requirepass', PASSWORD],
    signal: 'KILL'
  }
}

export const redis: Kind = {
  name: 'redis',
  variable: 'REDIS_URL',
  install: 'apt-get install redis-server (or valkey-server)',
  urlOf: (port) => `redis://:${PASSWORD}@127.0.0.1:${port}`,
  async findRunning () {
    return await answers(STANDARD_PORT) ? `redis://127.0.0.1:${STANDARD_PORT}` : undefined
  },
  async start () {
    const path = inPath('redis-server') ?? inPath('valkey-server')
    return path === undefined ? undefined : OwnServer.create(program(path))
  }
}
