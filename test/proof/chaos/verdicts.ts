/** Whether each job ended as it should: by its own `when` and `onAbort`, and those of one response alike. */
import { kindOf, type Kind } from './handlers.ts'
import type { Entry, Visit } from './ledger.ts'

/** What is wrong with the jobs of one response: a text for each. */
export function wrongs (visit: Visit): string[] {
  const kind = kindOf(visit.request)
  const found = visit.entries.flatMap((entry) => wrongsOf(entry, kind))
  const aborted = new Set<boolean>()
  for (const { outcome, record, job } of visit.entries) {
    if (outcome !== undefined) aborted.add(outcome.aborted)
    if (record?.reason === 'client-abort') aborted.add(true)
    if (record?.state === 'completed' && job.onAbort === 'drop') aborted.add(false)
  }
  if (aborted.size > 1) found.push('the jobs of one response disagree whether it was aborted')
  const expected = abortedOf(kind, visit)
  if (expected !== undefined && aborted.has(!expected)) found.push(expected ? 'an abort went unnoticed' : 'taken for aborted')
  return found
}

function wrongsOf ({ job, visit, asked, outcome, said, runs, record }: Entry, kind: Kind): string[] {
  const { state, reason } = record ?? {}
  if (state !== 'completed' && state !== 'cancelled') return [] // lost, and counted as that
  const found: string[] = []
  const accepted = said ?? acceptedBy(job.when ?? 'handled', kind, visit)
  if (state === 'completed' && runs === 0) found.push('completed without a run')
  if (state === 'completed' && accepted === false) found.push('ran although `when` refused')
  if (state === 'cancelled' && runs > 0) found.push('ran and was cancelled')
  if (state === 'cancelled' && reason === 'response' && accepted === true) found.push('cancelled although `when` accepted')
  if (state === 'cancelled' && reason === 'client-abort' && (job.onAbort !== 'drop' || accepted === false)) found.push('dropped although nobody asked for it')
  if (state === 'cancelled' && reason !== 'response' && reason !== 'client-abort') found.push(`cancelled for ${reason}`)
  if (asked > 1) found.push('`when` was asked twice')
  if (outcome !== undefined && knows(kind, visit)) {
    const { status = 200 } = kind
    const told = kind.breaks !== true && kind.never !== true && (kind.byHand !== true || visit.clean)
    if (told && outcome.statusCode !== status) found.push(`\`when\` was told ${outcome.statusCode} and not ${status}`)
    if ((outcome.error === undefined) !== isHandled(kind, visit)) found.push('`when` was told wrong of an error')
  }
  return found
}

/** Undefined: it depends on the moment in which the client left. */
function acceptedBy (when: string, kind: Kind, visit: Visit): boolean | undefined {
  if (when === 'always') return true
  if (!knows(kind, visit)) return undefined
  const handled = isHandled(kind, visit)
  if (when === 'handled') return handled
  if (when === 'error') return !handled
  return handled && (kind.status ?? 200) < 400
}

function knows (kind: Kind, { clean }: Visit): boolean {
  return kind.onlyClean !== true || clean
}

/** An inner request is answered whatever becomes of the outer one. */
function isHandled ({ handled = true }: Kind, { inner }: Visit): boolean {
  return inner || handled
}

function abortedOf ({ breaks, waits, never }: Kind, { clean, inner }: Visit): boolean | undefined {
  if (inner || clean) return false
  return breaks === true || waits === true || never === true ? true : undefined
}
