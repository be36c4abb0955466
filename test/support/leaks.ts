/**
 * Fails a test that leaves something behind: a timer, a socket or another handle, a listener on `process`, a process
 * warning, an unhandled rejection.
 *
 * `watchLeaks(t)` at the top of a test watches that test; with tap's root (`import t from 'tap'`) it watches each test
 * of the file. Limits: Node lists only what keeps the process alive, so of what was unref'd only timers are seen, which
 * are counted here; and tests that run side by side in one process would be taken for each other.
 */

/** The part of a tap test that is used here. */
interface TestLike {
  readonly parent?: unknown
  teardown (handler: () => Promise<void>): void
  beforeEach (handler: (t: TestLike) => void): void
}

export interface LeakOptions {
  /** Process warnings that the test expects, like the one of `node:sqlite` on Node 22. */
  allowWarnings?: RegExp
}

export interface LeakWatch {
  /** Waits until what is closing has closed, stops watching, and says what is left: a line for each kind. */
  /** `patience`: ms to wait for servers to close their end of a socket. @default 0 */
  stop (patience?: number): Promise<string[]>
}

type Counts = Map<string, number>

/** Timers made by the global functions since this file was loaded, and neither over nor cleared. */
const timers = new Set<NodeJS.Timeout>()
for (const name of ['setTimeout', 'setInterval'] as const) {
  const original = globalThis[name] as (run: (...args: unknown[]) => void, ...rest: unknown[]) => NodeJS.Timeout
  const counting = (run: (...args: unknown[]) => void, ...rest: unknown[]): NodeJS.Timeout => {
    const timer = original((...args) => {
      if (name === 'setTimeout') timers.delete(timer)
      run(...args)
    }, ...rest)
    timers.add(timer)
    return timer
  }
  // With what belongs to it, like the promise form.
  Object.assign(globalThis, { [name]: Object.defineProperties(counting, Object.getOwnPropertyDescriptors(original)) })
}

function quietTimers (): number {
  // A timer that was cleared says so nowhere else.
  for (const timer of timers) if ((timer as { _destroyed?: boolean })._destroyed === true) timers.delete(timer)
  return [...timers].filter((timer) => !timer.hasRef()).length
}

// They end by themselves within a few turns; what they work for is counted on its own.
const passing = /^(Immediate|TickObject|CloseReq|.*(Write|Shutdown)Wrap|.*Req(uest)?(Wrap|Callback|Promise)?)$/
// A closing socket needs a few turns of the loop. Turns, not milliseconds: a slow machine gets as many.
const maxTurns = 500

// Both are opened at their first use, which would look like a leak of the test that prints first.
void process.stdout
void process.stderr

export function watchLeaks (t: TestLike, options: LeakOptions = {}): void {
  if (t.parent === undefined) {
    t.beforeEach((child) => watchLeaks(child, options))
    return
  }
  const watch = startWatch(options)
  // tap runs teardowns last in, first out: this one sees what the test's own teardowns left.
  t.teardown(async () => {
    const leaks = await watch.stop()
    if (leaks.length > 0) throw new Error(`the test left behind: ${leaks.join('; ')}`)
  })
}

export function startWatch ({ allowWarnings }: LeakOptions = {}): LeakWatch {
  const heard: string[] = []
  const onWarning = (warning: Error) => {
    const text = `${warning.name}: ${warning.message}`
    if (!allowWarnings?.test(text)) heard.push(`process warning: ${text}`)
  }
  const onRejection = (reason: unknown) => { heard.push(`unhandled rejection: ${String(reason)}`) }
  process.on('warning', onWarning)
  // While this listener is there, tap leaves rejections to it.
  process.on('unhandledRejection', onRejection)
  const resourcesBefore = resources()
  const listenersBefore = listeners()

  return {
    async stop (patience = 0) {
      const until = performance.now() + patience
      // Warnings and rejections are told at the end of a turn.
      await nextTurn()
      for (let turn = 0; (turn < maxTurns || performance.now() < until) && more(resources(), resourcesBefore).length > 0; turn++) await nextTurn()
      const left = [...more(resources(), resourcesBefore), ...more(listeners(), listenersBefore, 'process listener ')]
      process.off('warning', onWarning)
      process.off('unhandledRejection', onRejection)
      return [...left, ...heard]
    }
  }
}

function resources (): Counts {
  const counts: Counts = new Map()
  for (const type of process.getActiveResourcesInfo()) {
    if (!passing.test(type)) counts.set(type, (counts.get(type) ?? 0) + 1)
  }
  counts.set('unref\'d Timeout', quietTimers())
  return counts
}

function listeners (): Counts {
  const counts: Counts = new Map()
  for (const event of process.eventNames()) counts.set(String(event), process.listenerCount(event))
  return counts
}

function more (now: Counts, before: Counts, prefix = ''): string[] {
  const lines: string[] = []
  for (const [name, count] of now) {
    const extra = count - (before.get(name) ?? 0)
    if (extra > 0) lines.push(`${prefix}${name} × ${extra}`)
  }
  return lines
}

function nextTurn (): Promise<void> {
  return new Promise((resolve) => { setImmediate(resolve) })
}
