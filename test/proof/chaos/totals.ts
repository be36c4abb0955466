/** The counts of a run, and the faults in words. */
import type { Entry, Ledger, Visit } from './ledger.ts'
import type { Unit } from './plan.ts'
import { wrongs } from './verdicts.ts'

/** Examples of each kind of fault that are told. */
const TOLD = 3

export class Row {
  requests = 0
  accepted = 0
  ran = 0
  refused = 0
  dropped = 0
}

/** All of these must stay 0. */
export class Faults {
  /** A job ran, or its `when` was asked, before its response was over. */
  early = 0
  /** A job had no end; or only maxHold brought it, although its handler and its client had ended. */
  lost = 0
  twice = 0
  /** A job ended against its `when` or `onAbort`. */
  wrong = 0
  /** Listeners, and methods laid over, on responses, streams and sockets. */
  left = 0
  timers = 0
  connections = 0
  /** Log lines, warnings and rejections that must not come; clients and servers that hang. */
  alarms = 0
}

export class Totals {
  readonly all = new Row()
  readonly byKind = new Map<string, Row>()
  readonly byClient = new Map<string, Row>()
  readonly pairs = new Set<string>()
  readonly faults = new Faults()
  /** The first of each kind of fault, in words. */
  readonly examples: string[] = []
  /** Jobs of handlers that never answer, which only maxHold ends. */
  held = 0
  /** Responses that were searched for what was left on them. */
  searched = 0
  /** Connections that Node kept although their clients were gone. */
  stuck = 0

  add (units: readonly Unit[], { visits, entries }: Ledger): void {
    for (const { requests } of units) for (const { kind, client } of requests) for (const row of this.#rows(kind, client)) row.requests++
    for (const entry of entries) this.#addEntry(entry)
    for (const visit of visits) this.#addVisit(visit)
  }

  #addEntry (entry: Entry): void {
    const { visit: { request: { kind, client, n } }, job, runs, record, early, unheard } = entry
    this.pairs.add(`${kind} × ${client}`)
    for (const row of this.#rows(kind, client)) {
      row.accepted++
      if (runs > 0) row.ran++
      if (record?.reason === 'response') row.refused++
      if (record?.reason === 'client-abort') row.dropped++
    }
    const text = `request ${n}, ${kind}, ${client}, ${JSON.stringify(job)}, ${record?.state}`
    if (early) this.fault('early', text)
    if (runs > 1) this.fault('twice', text)
    if (unheard || (runs === 0 && record?.state !== 'cancelled')) this.fault('lost', text)
  }

  #addVisit (visit: Visit): void {
    const { request: { kind, client, n }, entries, traces } = visit
    for (const text of wrongs(visit)) {
      const jobs = entries.map(({ job, record, outcome, said }) => ({ ...job, state: record?.state, reason: record?.reason, outcome, said }))
      this.fault('wrong', `request ${n}, ${kind}, ${client}: ${text}: ${JSON.stringify(jobs)}`)
    }
    if (traces === undefined) return
    this.searched++
    for (const text of traces.left()) this.fault('left', `request ${n}, ${kind}, ${client}: ${text}`)
  }

  #rows (kind: string, client: string): Row[] {
    return [this.all, rowOf(this.byKind, kind), rowOf(this.byClient, client)]
  }

  fault (kind: keyof Faults, text: string, count = 1): void {
    if (count === 0) return
    if (this.faults[kind] < TOLD) this.examples.push(`${kind}: ${text}`)
    this.faults[kind] += count
  }

  get clean (): boolean { return Object.values(this.faults).every((count) => count === 0) }

  /** The faults in one line. */
  get sum (): string { return Object.entries(this.faults).map(([name, count]) => `${name} ${count}`).join(', ') }
}

function rowOf (rows: Map<string, Row>, name: string): Row {
  let row = rows.get(name)
  if (row === undefined) rows.set(name, row = new Row())
  return row
}
