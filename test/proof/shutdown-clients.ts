/** Clients that keep a service busy until it leaves them. */
import http from 'node:http'
import http2 from 'node:http2'
import { chance } from './chance.ts'
import { kindNames, type Scenario } from './shutdown-app.ts'

export interface Load {
  /** Resolves when so many answers have come. */
  answered: Promise<void>
  /** Answers below 300. */
  accepted (): number
  stop (): void
}

export function start (origin: string, scenario: Scenario): Load {
  const random = chance(scenario.seed)
  const pick = <T>(all: readonly T[]): T => all[Math.floor(random() * all.length)] as T
  const ends: Array<() => void> = []
  let answers = 0
  let accepted = 0
  let stopped = false
  let enough!: () => void
  const answered = new Promise<void>((resolve) => { enough = resolve })
  const stuck = Array.from({ length: scenario.stuck }, () => '/added/stuck')
  const usual = kindNames.filter((kind) => kind !== 'stuck')

  const nextPath = (): string => stuck.pop() ?? `/${pick(['staged', 'staged', 'late', 'added', 'accepted'])}/${pick(['quick', 'slow', 'sync', ...usual])}`
  const note = (status: number | undefined): void => {
    if (status !== undefined && status < 300) accepted++
    if (++answers >= scenario.answers) enough()
  }

  for (let n = 0; n < scenario.clients; n++) {
    const client = (scenario.http2 ? overHttp2 : overHttp1)(origin)
    ends.push(() => { client.end() })
    const again = (): void => {
      if (stopped) return
      const headers: Record<string, string> = random() < 0.3 ? { prefer: 'wait=1' } : {}
      client.ask(nextPath(), headers, (status) => { note(status); again() })
    }
    again()
  }
  for (let n = 0; n < scenario.streams; n++) {
    const client = (scenario.http2 ? overHttp2 : overHttp1)(origin)
    ends.push(() => { client.end() })
    client.ask('/stream', {}, () => {})
  }
  return { answered, accepted: () => accepted, stop: () => { stopped = true; for (const end of ends) end() } }
}

interface Client {
  /** Calls back when the answer is complete; never, when the connection is lost. */
  ask (path: string, headers: Record<string, string>, done: (status: number | undefined) => void): void
  end (): void
}

/** One connection, kept alive between requests, as most clients do. */
function overHttp1 (origin: string): Client {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  return {
    ask (path, headers, done) {
      http.get(origin + path, { agent, headers }, (response) => {
        response.on('error', () => {}).on('end', () => { done(response.statusCode) }).resume()
      }).on('error', () => {})
    },
    end () { agent.destroy() }
  }
}

/** One session, which is kept open whatever the server says. */
function overHttp2 (origin: string): Client {
  const session = http2.connect(origin)
  session.on('error', () => {})
  return {
    ask (path, headers, done) {
      if (session.closed || session.destroyed) return
      let status: number | undefined
      session.request({ ':path': path, ...headers })
        .on('error', () => {}).on('response', (answer) => { status = Number(answer[':status']) }).on('end', () => { done(status) }).resume()
    },
    end () { session.destroy() }
  }
}
