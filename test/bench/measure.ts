/** Clocks and scales. */
import { setImmediate as nextTurn } from 'node:timers/promises'

export interface Spent {
  /** µs of CPU of this process, all its threads: the garbage collector's work is work too. */
  readonly cpu: number
  /** µs. */
  readonly wall: number
}

/** For both ends of a measurement, not for the inside of its loop. */
export function stopwatch (): () => Spent {
  const cpu = cpuNow()
  const wall = performance.now()
  return () => ({ cpu: cpuNow() - cpu, wall: (performance.now() - wall) * 1_000 })
}

function cpuNow (): number {
  const { user, system } = process.cpuUsage()
  return user + system
}

/** µs of CPU of the main thread alone. Nodes before 23.9 know it of the process only. */
export function mainThread (): () => number {
  const spent = (): NodeJS.CpuUsage => (process as { threadCpuUsage?: () => NodeJS.CpuUsage }).threadCpuUsage?.() ?? process.cpuUsage()
  const began = spent()
  return () => {
    const { user, system } = spent()
    return user - began.user + system - began.system
  }
}

/** Answers whether so many ms have passed. */
export function alarm (ms: number): () => boolean {
  const due = performance.now() + ms
  return () => performance.now() >= due
}

export interface Countdown {
  /** Calls of `done` that are still expected. */
  readonly left: number
  done (): void
  /** Resolves when `done` was called n times. */
  expect (n: number): Promise<void>
}

export function countdown (): Countdown {
  let left = 0
  let end = (): void => {}
  return {
    get left () { return left },
    done () { if (--left === 0) end() },
    expect (n) {
      left = n
      return new Promise((resolve) => { end = resolve })
    }
  }
}

/**
 * Not between short measurements: after a forced collection V8 works with a small nursery for a while, and whatever
 * allocates costs up to twice as much CPU.
 */
export function collectGarbage (): void {
  (globalThis as unknown as { gc: () => void }).gc() // from `--expose-gc`
}

/** Bytes in use after everything that can go has gone. */
export async function heapUsed (): Promise<number> {
  for (let i = 0; i < 3; i++) {
    collectGarbage()
    await nextTurn()
  }
  return process.memoryUsage().heapUsed
}

/** The ms of the event loop's turns in which jobs ended, by a chain of immediates; until the answered function is called. */
export function watchTurns (jobs: Countdown): () => number[] {
  const turns: number[] = []
  let { left } = jobs
  let before = performance.now()
  let stopped = false
  function look (): void {
    const now = performance.now()
    if (jobs.left !== left) turns.push(now - before)
    left = jobs.left
    before = now
    if (!stopped) setImmediate(look)
  }
  setImmediate(look)
  return () => {
    stopped = true
    look()
    return turns
  }
}

/** By nearest rank. */
export function quantile (numbers: readonly number[], q: number): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(sorted.length * q) - 1)] as number
}

export function median (numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] as number
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2
}
