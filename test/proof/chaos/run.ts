/**
 * The run, in phases. At the end of each all clients have left, and every job that was accepted must have ended; those
 * of handlers that never answer when their `maxHold` is skipped.
 */
import { ask } from './clients.ts'
import { SkippingClock } from './clock.ts'
import { kindOf, nextTurn } from './handlers.ts'
import { Ledger, type Entry } from './ledger.ts'
import { planOf, type Unit } from './plan.ts'
import { MAX_HOLD, openSites, type Sites } from './sites.ts'
import { Totals } from './totals.ts'

export interface ChaosOptions {
  readonly requests: number
  readonly seed: number
  /** Ms that a client, or a job that should have ended, is waited for: a bound, nothing is measured by it. */
  readonly patience?: number
  readonly onPhase?: (totals: Totals) => void
}

const PHASE = 5_000
const CLIENTS = 24
/** Ms until a connection without a client counts as stuck. */
const STUCK = 500

export async function chaos ({ requests, seed, patience = 15_000, onPhase = () => {} }: ChaosOptions): Promise<Totals> {
  const totals = new Totals()
  const alarm = (line: string): void => { totals.fault('alarms', line) }
  const stopWatching = watchProcess(alarm)
  const clock = new SkippingClock()
  const ledger = new Ledger()
  const sites = await openSites(clock, ledger, alarm)
  const plan = planOf(seed, requests)
  for (let units = take(plan, PHASE); units.length > 0; units = take(plan, PHASE)) {
    await inParallel(units, async (unit) => {
      ledger.expect(unit)
      await inTime(patience, ask(unit, sites[unit.protocol]), () => { alarm(`a client hangs: ${JSON.stringify(unit)}`) })
    })
    await hangUp(sites, totals)
    await soon(patience, () => allEnded(ledger, mayWait))
    for (const entry of ledger.entries) if (!entry.final && !mayWait(entry)) entry.unheard = true
    ledger.skipped = true
    clock.skip(MAX_HOLD)
    totals.held += ledger.entries.filter((entry) => !entry.final).length
    await soon(patience, () => allEnded(ledger, () => false))
    for (let turn = 0; turn < 20; turn++) await nextTurn() // room for a second run
    totals.add(units, ledger)
    totals.fault('timers', 'timers are held, and nothing waits', clock.held)
    ledger.clear()
    onPhase(totals)
  }
  for (const { app, protocol } of Object.values(sites)) await inTime(patience, app.close(), () => { alarm(`close() hangs, ${protocol}`) })
  totals.fault('twice', 'jobs of an earlier phase ran in a later one', ledger.strays)
  stopWatching()
  return totals
}

function take (plan: Iterator<Unit, void>, requests: number): Unit[] {
  const units: Unit[] = []
  for (let n = 0; n < requests;) {
    const { done, value } = plan.next()
    if (done === true) break
    units.push(value)
    n += value.requests.length
  }
  return units
}

async function inParallel (units: readonly Unit[], run: (unit: Unit) => Promise<void>): Promise<void> {
  const rest = units.values()
  await Promise.all(Array.from({ length: CLIENTS }, async () => {
    for (const unit of rest) await run(unit)
  }))
}

/** What hangs is told of, and left behind. */
async function inTime (patience: number, work: PromiseLike<unknown>, onLate: () => void): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(() => { onLate(); resolve() }, patience)
  })
  await Promise.race([work, late])
  clearTimeout(timer)
}

/** Looks again in each turn, until it holds or the patience is over. */
async function soon (patience: number, holds: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + patience
  while (!(await holds()) && Date.now() < end) await nextTurn()
}

/**
 * All clients are gone, and so must be their connections. Two kinds Node keeps, with this plugin or without, and they
 * are ended here by force: some of HTTP/2 whose client has destroyed its session, and pipelined ones that it no longer
 * reads because so many answers wait behind one that does not come.
 */
async function hangUp (sites: Sites, totals: Totals): Promise<void> {
  const all = Object.values(sites)
  await soon(STUCK, () => all.every(({ sockets }) => sockets.size === 0))
  for (const { protocol, sockets } of all) {
    for (const socket of sockets) {
      if (protocol.startsWith('h2') || socket.isPaused()) totals.stuck++
      else totals.fault('connections', `left by its client, ${protocol}`)
      socket.destroy()
    }
  }
}

/** Whether all jobs have ended, but for those that may wait. */
async function allEnded (ledger: Ledger, isExcused: (entry: Entry) => boolean): Promise<boolean> {
  let all = true
  for (const entry of ledger.entries) {
    if (entry.final) continue
    entry.record = await entry.visit.site.app.background.get(entry.id)
    if (!entry.final && !isExcused(entry)) all = false
  }
  return all
}

/** Its handler has no end that anybody could see. */
function mayWait ({ visit: { request, clean } }: Entry): boolean {
  const { never, mayHang } = kindOf(request)
  return never === true || (mayHang === true && !clean)
}

/** Warnings and rejections of the process must not come either. */
function watchProcess (alarm: (line: string) => void): () => void {
  // Fastify's own: it closes the connection after a body that it refused, in a header that HTTP/2 does not know.
  const onWarning = (warning: Error): void => { if (!/connection header is not valid/.test(warning.message)) alarm(`process warning: ${warning.stack}`) }
  const onRejection = (reason: unknown): void => { alarm(`unhandled rejection: ${(reason as Error | undefined)?.stack ?? String(reason)}`) }
  process.on('warning', onWarning).on('unhandledRejection', onRejection)
  return () => { process.off('warning', onWarning).off('unhandledRejection', onRejection) }
}
