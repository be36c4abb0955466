/** Hides parts of what jobs hold from those who list them: paths in the syntax of pino's `redact`. */
import { isArray, type Check } from './check.ts'
import type { JobRecord } from './job.ts'
import type { Json } from './json.ts'

/** The parts of a job that hold what users put into it. */
const ROOTS = ['payload', 'result', 'progress'] as const
const CENSOR = '[REDACTED]'
/** `a`, `.a`, `[0]`, `["a-b"]`, `['a b']`, `*`, `[*]`. */
const STEP = /\.?(?:([A-Za-z_$][\w$-]*|\d+|\*)|\[(?:(\d+|\*)|"([^"]*)"|'([^']*)')\])/y

export type Redacted = Pick<JobRecord, 'payload' | 'result' | 'progress'>

/** A list of paths, each from `payload`, `result`, `progress` or `*` on: one that could never match hides nothing. */
export const redactPaths: Check = (value) =>
  isArray(value) && Array.from(value).every((path) => typeof path === 'string' && stepsOf(path) !== undefined)
    ? undefined : 'an array of paths such as "payload.card.number", "payload.items[*].token" or "*.password"'

/** Answers what hides in a record, which it changes. */
export function createRedactor (paths: readonly string[]): (job: Redacted) => void {
  const all = paths.map((path) => stepsOf(path) ?? [])
  return (job) => { for (const steps of all) hide(job, steps, 0) }
}

function hide (value: Json | undefined, steps: readonly string[], at: number): void {
  if (typeof value !== 'object' || value === null) return
  const inside = value as Record<string, Json>
  for (const key of steps[at] === '*' ? keysOf(inside, at) : [steps[at] as string]) {
    if (!Object.hasOwn(inside, key)) continue
    if (at < steps.length - 1) hide(inside[key], steps, at + 1)
    else inside[key] = CENSOR // an own key, `__proto__` too: nothing else is set
  }
}

/** Of a record, only what users put into it is meant by `*`. */
function keysOf (value: object, at: number): readonly string[] {
  return at === 0 ? ROOTS : Object.keys(value)
}

function stepsOf (path: string): string[] | undefined {
  const steps: string[] = []
  STEP.lastIndex = 0
  for (let end = 0; end < path.length; end = STEP.lastIndex) {
    const found = STEP.exec(path)
    if (found === null || (end === 0 ? found[0].startsWith('.') : !/^[.[]/.test(found[0]))) return undefined
    steps.push(found[1] ?? found[2] ?? found[3] ?? found[4] as string)
  }
  const [root = ''] = steps
  return root === '*' || ROOTS.includes(root as 'payload') ? steps : undefined
}
