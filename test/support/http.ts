/** Servers and clients on real sockets, with the plugin and a ledger of its jobs. */
import { once } from 'node:events'
import http, { type IncomingMessage, type RequestOptions } from 'node:http'
import http2, { type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2'
import https from 'node:https'
import net, { type AddressInfo, type Socket } from 'node:net'
import type { Readable } from 'node:stream'
import Fastify, { type FastifyInstance, type FastifyRegisterOptions } from 'fastify'
import { backgroundTasks, type BackgroundTasksOptions, type JobRecord } from '../../lib/index.ts'
import { deferred } from './harness.ts'
import { Ledger, settle } from './ledger.ts'
import { tls } from './tls.ts'

export type Protocol = 'HTTP/1.1' | 'HTTP/1.1 with TLS' | 'HTTP/2' | 'HTTP/2 with TLS'
export const protocols: Protocol[] = ['HTTP/1.1', 'HTTP/1.1 with TLS', 'HTTP/2', 'HTTP/2 with TLS']

/** The part of a tap test that is used here. */
interface TestLike {
  teardown (handler: () => unknown): unknown
  same (found: unknown, wanted: unknown, ...rest: [] | [string]): boolean
}

export interface SiteOptions {
  protocol?: Protocol | undefined
  /** For Fastify. */
  server?: Record<string, unknown>
  /** For the plugin. */
  plugin?: BackgroundTasksOptions
  /** Called before the plugin is registered. */
  before?: (app: FastifyInstance) => void
}

export class Site {
  readonly app: FastifyInstance
  readonly protocol: Protocol
  readonly ledger = new Ledger()
  readonly log: Array<Record<string, any>> = []

  constructor (protocol: Protocol, server: Record<string, unknown>) {
    this.protocol = protocol
    const options: Record<string, unknown> = {
      logger: { level: 'info', stream: { write: (line: string) => { this.log.push(JSON.parse(line)) } } },
      ...(protocol.startsWith('HTTP/2') ? { http2: true } : {}),
      ...(protocol.endsWith('TLS') ? { https: tls } : {}),
      ...server
    }
    this.app = Fastify(options)
  }

  get port (): number { return (this.app.server.address() as AddressInfo).port }

  get origin (): string { return `${this.protocol.endsWith('TLS') ? 'https' : 'http'}://localhost:${this.port}` }

  async ask (path: string, options: AskOptions = {}): Promise<Answer> {
    const exchange = await open(this, path, options)
    return exchange.answer()
  }

  /** Log lines with this text. */
  logged (text: string): Array<Record<string, any>> {
    return this.log.filter((line) => line['msg'] === text)
  }

  async job (index = 0): Promise<JobRecord> {
    return await this.app.background.get(this.ledger.entries[index]?.id ?? '') as JobRecord
  }

  /** All jobs written down, `count` of them, ran once and not too early; `refused` of them never. */
  async check (t: TestLike, count = 1, refused = 0): Promise<void> {
    await this.ledger.accepted(count)
    try {
      await this.app.background.onIdle({ timeout: 20_000 })
    } catch (error) {
      this.ledger.events.push(String(error)) // the summary tells which are lost
    }
    await settle()
    t.same(this.ledger.summary(refused), { accepted: count, early: 0, lost: 0, twice: 0 }, 'each job ran once, after its response')
  }
}

/** A server that listens, with the plugin in it. Closed at the end of the test, after its clients. */
export async function site (t: TestLike, routes: (site: Site) => unknown, options: SiteOptions = {}): Promise<Site> {
  const made = new Site(options.protocol ?? 'HTTP/1.1', options.server ?? {})
  t.teardown(() => made.app.close())
  options.before?.(made.app)
  await made.app.register(backgroundTasks, { drainTimeout: 100, abortGrace: 100, ...options.plugin } as FastifyRegisterOptions<BackgroundTasksOptions>)
  await routes(made)
  await made.app.listen({ port: 0, host: '127.0.0.1' })
  return made
}

export interface AskOptions {
  method?: string
  headers?: Record<string, string>
  body?: string
}

export interface Answer {
  status: number
  headers: Record<string, unknown>
  body: string
  /** The connection broke, before the answer or within it. */
  broken: boolean
}

/** One request under way. */
export interface Exchange {
  /** The body as it comes; before it, the status has arrived. */
  response (): Promise<{ status: number, headers: Record<string, unknown>, body: Readable }>
  /** Reads it all. Never rejects. */
  answer (): Promise<Answer>
  /** Goes away without another word. */
  leave (): void
}

export async function open (site: Site, path: string, options: AskOptions = {}): Promise<Exchange> {
  return site.protocol.startsWith('HTTP/2') ? openHttp2(site, path, options) : openHttp1(site, path, options)
}

function openHttp1 (site: Site, path: string, { method = 'GET', headers = {}, body }: AskOptions): Exchange {
  const given: RequestOptions = { host: 'localhost', port: site.port, path, method, headers, agent: false, family: 4 }
  const request = site.protocol === 'HTTP/1.1' ? http.request(given) : https.request({ ...given, ca: tls.cert })
  request.end(body)
  request.on('error', () => {}) // told by `response`
  const came = once(request, 'response') as Promise<[IncomingMessage]>
  came.catch(() => {})
  const response = async () => {
    const [message] = await came
    return { status: message.statusCode ?? 0, headers: message.headers, body: message }
  }
  return { response, answer: () => readAll(response()), leave: () => { request.destroy() } }
}

async function openHttp2 (site: Site, path: string, { method = 'GET', headers = {}, body }: AskOptions): Promise<Exchange> {
  const session = connect2(site)
  const stream = session.request({ ':path': path, ':method': method, ...headers }, { endStream: body === undefined })
  if (body !== undefined) stream.end(body)
  stream.on('close', () => { session.close() })
  const response = answered2(stream)
  return { response: () => response, answer: () => readAll(response), leave: () => { stream.close(http2.constants.NGHTTP2_CANCEL) } }
}

export function connect2 (site: Site): ClientHttp2Session {
  const session = http2.connect(site.origin, site.protocol.endsWith('TLS') ? { ca: tls.cert } : {})
  session.on('error', () => {}) // a test that breaks a session knows
  return session
}

/** Rejects when the stream ends without an answer. */
export function answered2 (stream: ClientHttp2Stream): Promise<{ status: number, headers: Record<string, unknown>, body: Readable }> {
  stream.on('error', () => {})
  const came = new Promise<{ status: number, headers: Record<string, unknown>, body: Readable }>((resolve, reject) => {
    stream.on('response', (headers) => { resolve({ status: Number(headers[':status']), headers, body: stream }) })
    stream.on('close', () => { reject(new Error('no answer')) })
  })
  came.catch(() => {})
  return came
}

export async function readAll (response: ReturnType<Exchange['response']>): Promise<Answer> {
  const answer: Answer = { status: 0, headers: {}, body: '', broken: true }
  try {
    const { status, headers, body } = await response
    Object.assign(answer, { status, headers })
    for await (const chunk of body.setEncoding('utf8')) answer.body += chunk
    answer.broken = (body as { rstCode?: number }).rstCode !== undefined && (body as { rstCode?: number }).rstCode !== 0
  } catch {
    // broken
  }
  return answer
}

/** A client that speaks HTTP/1.1 by hand. Destroyed at the end of the test. */
export class Wire {
  readonly socket: Socket
  received = ''
  #more = deferred()

  constructor (t: TestLike, site: Site) {
    this.socket = net.connect({ port: site.port, host: '127.0.0.1', allowHalfOpen: true }).setEncoding('utf8')
    t.teardown(() => { this.socket.destroy() })
    this.socket.on('error', () => { this.#tell() })
    this.socket.on('close', () => { this.#tell() })
    this.socket.on('data', (chunk) => {
      this.received += String(chunk)
      this.#tell()
    })
  }

  send (...paths: string[]): void {
    this.socket.write(paths.map((path) => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`).join(''))
  }

  /** Resolves when this text has come `count` times, or nothing more can come. */
  async until (text: string, count = 1): Promise<void> {
    while (this.received.split(text).length <= count && !this.socket.destroyed) await this.#more.promise
  }

  #tell (): void {
    this.#more.resolve()
    this.#more = deferred()
  }
}
