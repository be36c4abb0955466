/**
 * A client that asks at its own pace, whatever comes back, in a process of its own; for each message, so many requests. A
 * latency counts from the moment in which the request was due. What has no answer when the time is up counts until then.
 */
import { Agent, get } from 'node:http'

export interface Pace {
  readonly port: number
  readonly path: string
  /** Requests a second. */
  readonly rate: number
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

async function ask ({ port, path, rate, ms, keepAlive }: Pace): Promise<Latencies> {
  const agent = keepAlive ? new Agent({ keepAlive: true, maxSockets: 256 }) : undefined
  const began = performance.now()
  const total = Math.round(rate * ms / 1_000)
  const latencies: number[] = []
  const open = new Set<number>()
  let sent = 0
  const send = (): void => {
    const due = began + sent++ * 1_000 / rate
    open.add(due)
    const request = get({ host: '127.0.0.1', port, path, ...(agent === undefined ? { agent: false } : { agent }) }, (response) => {
      response.resume()
      response.on('end', () => { if (open.delete(due)) latencies.push(performance.now() - due) })
    })
    request.on('error', () => {}) // without an answer it stays open
  }
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      while (sent < total && began + sent * 1_000 / rate <= performance.now()) send()
      if ((sent < total || open.size > 0) && performance.now() < began + 2 * ms) return
      clearInterval(timer)
      resolve()
    }, 1)
  })
  for (const due of open) latencies.push(performance.now() - due)
  open.clear()
  agent?.destroy()
  const sorted = latencies.sort((a, b) => a - b)
  return { p50: quantile(sorted, 0.5), p90: quantile(sorted, 0.9), p99: quantile(sorted, 0.99) }
}

/** Of sorted numbers, nearest rank. */
function quantile (sorted: readonly number[], q: number): number {
  return sorted[Math.max(0, Math.ceil(sorted.length * q) - 1)] ?? NaN
}
