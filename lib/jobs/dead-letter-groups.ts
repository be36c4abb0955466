/** What dead letters have in common: the fingerprint of their last error, and groups of them. Pure. */
import { createHash } from 'node:crypto'
import type { ErrorFacts } from '../describe.ts'
import type { JobRecord } from '../job.ts'

/** A dead letter. */
export interface DeadLetter extends JobRecord {
  /** 16 hexadecimal digits: equal for errors of one kind, whatever ids and numbers their texts hold. */
  fingerprint: string
}

/** Dead letters whose errors are of one kind. */
export interface DeadLetterGroup {
  fingerprint: string
  count: number
  /** In the order of the alphabet. */
  tasks: string[]
  /** Of the latest. */
  error: Pick<ErrorFacts, 'name' | 'code' | 'message'> | null
  /** ISO 8601. */
  firstFailedAt: string
  lastFailedAt: string
  /** Id of the latest. */
  latest: string
}

/** Characters of an error's text that count. */
const LONGEST = 1_000
/** What differs from one job to the next: addresses, ids, long hexadecimal numbers, numbers. */
const VARIES = /[^\s<>"']+@[^\s<>"']+|\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b(?=[a-f]*\d)[0-9a-f]{8,}\b|\d+/gi

export function fingerprintOf ({ error, failure }: Pick<JobRecord, 'error' | 'failure'>): string {
  const { name = '', code = '', message = '' } = error ?? {}
  // A timeout's text tells how long it was: the same for all.
  const kind = [failure === 'timeout' || failure === 'expired' || failure === 'stalled' ? failure : 'error', name, code, message.slice(0, LONGEST).replace(VARIES, '#')]
  return createHash('sha256').update(kind.join('\n')).digest('hex').slice(0, 16)
}

export function asDeadLetter (record: JobRecord): DeadLetter {
  return { ...record, fingerprint: fingerprintOf(record) }
}

export class Groups {
  readonly #groups = new Map<string, DeadLetterGroup & { names: Set<string> }>()
  matched = 0

  add ({ id, name, fingerprint, error, finishedAt, createdAt }: DeadLetter): void {
    this.matched++
    const at = finishedAt ?? createdAt
    let group = this.#groups.get(fingerprint)
    if (group === undefined) {
      group = { fingerprint, count: 0, tasks: [], names: new Set(), error: null, firstFailedAt: at, lastFailedAt: '', latest: id }
      this.#groups.set(fingerprint, group)
    }
    group.count++
    group.names.add(name)
    if (at < group.firstFailedAt) group.firstFailedAt = at
    if (at < group.lastFailedAt) return
    group.lastFailedAt = at
    group.latest = id
    group.error = error === undefined ? null : { name: error.name, code: error.code, message: error.message }
  }

  /** The largest first. */
  largest (limit: number): DeadLetterGroup[] {
    const sorted = [...this.#groups.values()].sort((a, b) => b.count - a.count || (a.lastFailedAt < b.lastFailedAt ? 1 : -1))
    return sorted.slice(0, limit).map(({ names, ...group }) => ({ ...group, tasks: [...names].sort() }))
  }
}
