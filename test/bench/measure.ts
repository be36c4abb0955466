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

/** Answers whether so many ms have passed. */
export function alarm (ms: number): () => boolean {
  const due = performance.now() + ms
  return () => performance.now() >= due
}

export interface Countdown {
  done (): void
  /** Resolves when `done` was called n times. */
  expect (n: number): Promise<void>
}

export function countdown (): Countdown {
  let left = 0
  let end = (): void => {}
  return {
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

export interface TurnTimes {
  readonly turns: number
  /** Ms. */
  readonly p99: number
  readonly longest: number
}

/** Measures the turns of the event loop by a chain of immediates, until the answered function is called. */
export function watchTurns (): () => TurnTimes {
  const turns: number[] = []
  let before = performance.now()
  let stopped = false
  setImmediate(function look () {
    const now = performance.now()
    turns.push(now - before)
    before = now
    if (!stopped) setImmediate(look)
  })
  return () => {
    stopped = true
    turns.push(performance.now() - before)
    turns.sort((a, b) => a - b)
    // Nearest rank.
    return { turns: turns.length, p99: turns[Math.ceil(turns.length * 0.99) - 1] as number, longest: turns.at(-1) as number }
  }
}

export function median (numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] as number
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2
}
