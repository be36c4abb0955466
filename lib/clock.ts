/**
 * Time and chance. Nothing else in `lib/` touches Date, performance, timers or Math.random, so that a test
 * can hold all of them in its hand.
 */
import { monitorEventLoopDelay, performance } from 'node:perf_hooks'

/** As Node's own. */
export interface Timer {
  /** Keeps the process alive. */
  ref(): unknown
  /** Does not. */
  unref(): unknown
}

/** Where all time and chance comes from. */
export interface Clock {
  /** Wall time, ms since the epoch; may jump. For stamps that people read. */
  now(): number
  /** Ms from an arbitrary origin; never goes back. For everything that waits. */
  monotonic(): number
  /** From 0 to 1, below 1. For jitter, never for ids. */
  readonly random: () => number
  /** Calls `run` once after `ms`, or after `LONGEST_TIMER` where that is shorter; may be a little early. */
  setTimer(run: () => void, ms: number): Timer
  /** One that has fired or was cleared is left alone. */
  clearTimer(timer: Timer): void
  /** Calls `run` in a later turn of the event loop. */
  soon(run: () => void): void
  /** How many events the loop's polls have read so far; without it, requests do not go first. */
  read?(): number
}

/** Ms. Node fires a longer one at once. */
export const LONGEST_TIMER = 2 ** 31 - 1

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  random: () => Math.random(),
  setTimer: (run, ms) => setTimeout(run, Math.min(ms, LONGEST_TIMER)),
  clearTimer: (timer) => clearTimeout(timer as NodeJS.Timeout),
  soon: (run) => { setImmediate(run) },
  read: () => performance.nodeTiming.uvMetricsInfo.events
}

export interface LoopDelay {
  /** 99th percentile of the loop's delay in ms, over the last minute or so. */
  read(): number
  stop(): void
}

const SAMPLE_MS = 20
const WINDOW_MS = 60_000

/** Watches how late the event loop runs. Its timer does not keep the process alive. */
export function watchLoopDelay (clock: Clock): LoopDelay {
  const histogram = monitorEventLoopDelay({ resolution: SAMPLE_MS })
  let since = clock.monotonic()
  histogram.enable()
  return {
    read () {
      // Without samples the histogram answers NaN; a sample includes the wait that was asked for.
      const late = histogram.count === 0 ? 0 : histogram.percentile(99) / 1e6 - SAMPLE_MS
      if (clock.monotonic() - since > WINDOW_MS) {
        histogram.reset()
        since = clock.monotonic()
      }
      return Math.max(0, Math.round(late * 100) / 100)
    },
    stop () { histogram.disable() }
  }
}
