/** What a handler returned, as its job keeps it: by JSON's rules, or left out and marked. */
import type { OmittedResult, Outcome } from '../job.ts'
import { copyAsJson } from '../json.ts'

export type Kept = Pick<Extract<Outcome, { kind: 'completed' }>, 'result' | 'resultOmitted'>

/** Stands for a result that was left out where the body ran. */
export class LeftOut {
  readonly why: OmittedResult

  constructor (why: OmittedResult) {
    this.why = why
  }
}

export function keepResult (returned: unknown, maxBytes: number): Kept {
  if (returned === undefined) return {}
  if (returned instanceof LeftOut) return { resultOmitted: returned.why }
  try {
    const copied = copyAsJson(returned)
    if (copied === undefined) return { resultOmitted: 'unserializable' }
    return copied.bytes > maxBytes ? { resultOmitted: 'too-large' } : { result: copied.value }
  } catch {
    return { resultOmitted: 'unserializable' }
  }
}
