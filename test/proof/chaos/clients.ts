/**
 * The clients. Each asks what its unit of the plan holds, leaves when that says so, and resolves when nothing more can
 * come. None of them cares what the answer is.
 */
import http from 'node:http'
import http2, { type ClientHttp2Stream } from 'node:http2'
import https from 'node:https'
import net, { type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { tls } from '../../support/tls.ts'
import { kindOf, pathOf } from './handlers.ts'
import type { Ledger } from './ledger.ts'
import type { Leave, Request, Unit } from './plan.ts'
import type { Site } from './sites.ts'

const ca = tls.cert

interface Target {
  method: 'GET' | 'POST' | 'HEAD'
  path: string
  headers: Record<string, string>
  body: string | undefined
}

function targetOf (request: Request): Target {
  const { method = 'GET', path = '/' } = kindOf(request)
  const body = method === 'POST' ? '{"posted":true}' : undefined
  const headers = { 'x-n': String(request.n), 'accept-encoding': 'gzip', ...(body && { 'content-type': 'application/json' }) }
  return { method, path: pathOf(request.kind) + path, headers, body }
}

/** One client with all its requests. */
export function ask (unit: Unit, site: Site): Promise<void> {
  if (unit.protocol === 'inject') return inject(unit, site)
  if (unit.protocol.startsWith('h2')) return overHttp2(unit, site)
  switch (unit.client) {
    case 'half-close': return byHand(unit, site, (socket) => { socket.end() })
    case 'half a body':
    case 'reset': return byHand(unit, site, (socket) => { socket.resetAndDestroy() })
    case 'pipelined':
    case 'pipelined, leaves':
    case 'slow reader': return byHand(unit, site, (socket) => { socket.destroy() })
    default: return oneByOne(unit, site)
  }
}

async function inject ({ requests }: Unit, { app }: Site): Promise<void> {
  for (const request of requests) {
    const { method, path, headers, body } = targetOf(request)
    // It rejects when the response is destroyed.
    await app.inject({ method, url: path, headers, ...(body && { payload: body }) }).catch(() => {})
  }
}

/** Node's own client: one request after the other, on one connection if the agent keeps it. */
async function oneByOne ({ client, protocol, requests }: Unit, { port, ledger }: Site): Promise<void> {
  const { Agent, request: send } = protocol === 'h1s' ? https : http
  const agent = new Agent({ keepAlive: client === 'keep-alive' || client === 'TLS', maxSockets: 1 })
  for (const request of requests) {
    const { method, path, headers, body } = targetOf(request)
    const sent = send({ host: 'localhost', family: 4, port, method, path, headers, agent, ...(protocol === 'h1s' && { ca }) })
    const leave = (): void => { sent.destroy() }
    if (request.leave === 'accepted') void ledger.accepted(request.n).then(leave)
    sent.on('error', () => {}).on('response', (message) => {
      message.on('error', () => {})
      if (request.leave === 'headers') return leave()
      message.on('data', () => { if (request.leave === 'data') leave() })
    })
    const closed = new Promise((resolve) => { sent.on('close', resolve) })
    sent.end(body, () => { if (request.leave === 'sent') leave() })
    await closed
  }
  agent.destroy()
}

/** All requests at once on one socket, written by hand. The first that wants it makes `leave` happen. */
async function byHand ({ client, protocol, requests, pause }: Unit, { port, ledger }: Site, leave: (socket: Socket) => void): Promise<void> {
  const options = { host: '127.0.0.1', port, allowHalfOpen: client === 'half-close' }
  const socket = protocol === 'h1s' ? connectTls({ ...options, servername: 'localhost', ca }) : net.connect(options)
  const closed = new Promise((resolve) => { socket.on('close', resolve) })
  let left = false
  const leaveOnce = (): void => {
    if (left || socket.destroyed) return
    left = true
    leave(socket)
  }
  const leaves = (when: Leave): Request[] => requests.filter((request) => request.leave === when)
  for (const { n } of leaves('accepted')) void ledger.accepted(n).then(leaveOnce)
  socket.on('error', () => {}).once('data', () => {
    if (leaves('data').length > 0) leaveOnce()
    if (pause > 0) void takeABreak(socket, pause)
  })
  // A response that breaks behind another leaves its connection open on Node 24.
  if (requests.some((request) => kindOf(request).breaks)) socket.setTimeout(200, () => { socket.destroy() })
  if (client === 'half-close') socket.on('end', () => { socket.end() })
  socket.write(requests.map((request, index) => written(request, index === requests.length - 1, client === 'half a body')).join(''), () => {
    if (leaves('sent').length > 0) leaveOnce()
  })
  socket.resume()
  await closed
}

function written (request: Request, last: boolean, half: boolean): string {
  const { method, path, headers, body = '' } = targetOf(request)
  const lines = Object.entries({ Host: 'localhost', ...headers, Connection: last ? 'close' : 'keep-alive', ...(body && { 'Content-Length': body.length }) })
  return `${method} ${path} HTTP/1.1\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n${half ? body.slice(0, 5) : body}`
}

/** A slow reader holds its connection for a while. */
async function takeABreak (socket: Socket, ms: number): Promise<void> {
  socket.pause()
  await sleep(ms)
  socket.resume()
}

/** Many streams on one session; one that leaves is reset, or takes the session with it. */
async function overHttp2 ({ client, protocol, requests, code }: Unit, { port, ledger }: Site): Promise<void> {
  const options = { family: 4, ...(protocol === 'h2s' && { ca }) }
  const session = http2.connect(`${protocol === 'h2s' ? 'https' : 'http'}://localhost:${port}`, options)
  const closed = new Promise((resolve) => { session.on('close', resolve) })
  session.on('error', () => {})
  await Promise.all(requests.map((request) => {
    const { method, path, headers, body } = targetOf(request)
    const stream = session.request({ ':method': method, ':path': path, ...headers }, { endStream: body === undefined })
    if (body !== undefined) stream.end(body)
    stream.on('error', () => {}).resume()
    leaveInTime(stream, request, ledger, () => {
      // In a turn of its own: Node 20 corrupts its memory when a client does it inside an event of its session.
      if (client === 'HTTP/2 session destroy') setImmediate(() => { session.destroy() })
      else stream.close(code)
    })
    return new Promise((resolve) => { stream.on('close', resolve) })
  }))
  session.close()
  await closed
}

function leaveInTime (stream: ClientHttp2Stream, { n, leave: when }: Request, ledger: Ledger, leave: () => void): void {
  if (when === 'accepted') void ledger.accepted(n).then(leave)
  else if (when === 'headers') stream.once('response', leave)
  else if (when === 'data') stream.once('data', leave)
  else if (when === 'sent') stream.once('ready', leave)
}
