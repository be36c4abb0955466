/**
 * A client that asks at its own pace, whatever comes back, in a process of its own; for each message, so many requests. A
 * latency counts from the moment in which the request was due. What has no answer when the time is up counts until then.
 */
import { Agent, get } from 'node:http'
import { connect, type ClientHttp2Session } from 'node:http2'
import { Agent as SecureAgent, get as getSecurely } from 'node:https'

export type Protocol = 'http' | 'https' | 'http2'

export interface Pace {
  readonly port: number
  readonly path: string
  /** Requests a second. */
  readonly rate: number
  /** Requests that are due at once. */
  readonly burst: number
  readonly protocol: Protocol
  /** Ms of asking; as much again is waited for the answers. */
  readonly ms: number
  /** A connection kept, or a new one for each request. */
  readonly keepAlive: boolean
}

export interface Latencies {
  readonly p50: number
  readonly p90: number
  readonly p99: number
}

process.on('disconnect', () => { process.exit() })
process.on('message', (pace: Pace) => { void ask(pace).then((found) => process.send?.(found)) })

async function ask (pace: Pace): Promise<Latencies> {
  const { rate, burst, ms } = pace
  const { request, close } = requester(pace)
  const total = Math.ceil(rate * ms / 1_000)
  const latencies: number[] = []
  const open = new Set<number>()
  const began = performance.now()
  let sent = 0
  const dueAt = (n: number): number => began + Math.floor(n / burst) * burst * 1_000 / rate + n % burst * 1e-6 // no two alike
  const send = (): void => {
    const due = dueAt(sent++)
    open.add(due)
    // Without an answer it stays open.
    request(() => { if (open.delete(due)) latencies.push(performance.now() - due) })
  }
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      while (sent < total && dueAt(sent) <= performance.now()) send()
      const time = performance.now() - began
      if (time < ms || ((sent < total || open.size > 0) && time < 2 * ms)) return
      clearInterval(timer)
      resolve()
    }, 1)
  })
  for (const due of open) latencies.push(performance.now() - due)
  open.clear()
  close()
  const sorted = latencies.sort((a, b) => a - b)
  return { p50: quantile(sorted, 0.5), p90: quantile(sorted, 0.9), p99: quantile(sorted, 0.99) }
}

/** Calls back when the whole answer is there. */
function requester ({ protocol, port, path, keepAlive }: Pace): { request: (answered: () => void) => void, close: () => void } {
  if (protocol === 'http2') return overHttp2(`https://127.0.0.1:${port}`, path)
  const options = { keepAlive: true, maxSockets: 256 }
  const agent = !keepAlive ? undefined : protocol === 'http' ? new Agent(options) : new SecureAgent(options)
  return {
    request (answered) {
      const ask = protocol === 'http' ? get : getSecurely
      ask({ host: '127.0.0.1', port, path, agent: agent ?? false, rejectUnauthorized: false }, (response) => {
        response.resume().on('end', answered)
      }).on('error', () => {})
    },
    close () { agent?.destroy() }
  }
}

function overHttp2 (origin: string, path: string): ReturnType<typeof requester> {
  const session: ClientHttp2Session = connect(origin, { rejectUnauthorized: false }).on('error', () => {})
  return {
    request (answered) {
      session.request({ ':path': path }).on('error', () => {}).on('end', answered).resume()
    },
    close () { session.destroy() }
  }
}

/** Of sorted numbers, nearest rank. */
function quantile (sorted: readonly number[], q: number): number {
  return sorted[Math.max(0, Math.ceil(sorted.length * q) - 1)] ?? NaN
}
