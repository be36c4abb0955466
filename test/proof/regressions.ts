/** Sequences that failed once, as the model test printed them, shortened. Each names what was wrong. */
import type { Op, Spec } from './plan.ts'

const plain: Spec = {
  kind: 'task', steps: [], queue: 'default', priority: 0, pad: 0, attempts: 2, backoff: 100, timeout: 0, delay: 0, runAt: null, ttl: 0, when: 'handled', onAbort: 'run', group: null, once: null
}
const spec = (special: Partial<Spec>): Spec => ({ ...plain, ...special })
const ignores = { steps: [{ wait: 'ignores' as const }] }

export const regressions: Record<string, Op[]> = {
  // Seed 1, path 126.
  'a job cancelled after its timeout, before its body has settled, was retried': [
    { op: 'add', spec: spec({ ...ignores, timeout: 50 }) },
    { op: 'advance', ms: 100 },
    { op: 'cancel', at: 0 },
    { op: 'settle', at: 0, how: 'throw' }
  ],
  // Seed 2, path 134.
  'a shutdown named jobs as left undone that had ended otherwise, and were forgotten by retention in the same turn': [
    { op: 'bulk', specs: [spec(ignores)] },
    { op: 'request', specs: [spec({ attempts: 1 }), spec({ priority: -1 }), spec({ when: 'throws' })] },
    { op: 'bulk', specs: [spec({ ...ignores, priority: -1 })] },
    { op: 'advance', ms: 501 },
    { op: 'cancel', at: 0 }
  ],
  // Seed 2, path 1153.
  'the end of a response cancelled a dead letter that had expired while it was open, and had been retried': [
    { op: 'request', specs: [spec({ ttl: 30, when: 'error' })] },
    { op: 'pause', queue: null },
    { op: 'advance', ms: 50 },
    { op: 'retry', at: 0, rate: null, dryRun: false },
    { op: 'respond', at: 0, end: 'ok' }
  ],
  // Seed 2, path 2369.
  'a response over by maxHold was judged again by what its handler threw later': [
    { op: 'request', specs: [spec({ when: 'success' })] },
    { op: 'advance', ms: 5_000 },
    { op: 'respond', at: 0, end: 'throw' },
    { op: 'stage', at: 0, spec: spec({}) }
  ],
  // Seed 21, path 15.
  'a job cancelled in the turn in which its body threw was retried': [
    { op: 'add', spec: spec(ignores) },
    { op: 'race', at: 0, how: 'throw' }
  ],
  // Seed 11, path 1227.
  'a deadline that rang a millisecond early let a job start a millisecond before its limiter': [
    { op: 'add', spec: spec({ queue: 'api' }) },
    { op: 'add', spec: spec({ queue: 'api' }) },
    { op: 'add', spec: spec({ delay: 999 }) },
    { op: 'add', spec: spec({ queue: 'api', delay: 1_000 }) },
    { op: 'advance', ms: 1_000 }
  ],
  // Seed 449408452: between its delivery and its body a job waits for its turn of the loop.
  'a job cancelled while it waited for its turn was said to go on': [
    { op: 'add', spec: spec({ ...ignores, attempts: 1, backoff: 0 }) },
    { op: 'advance', ms: 1 },
    { op: 'race', at: 0, how: { later: 0, counted: false } }
  ],
  // Seed 1775365152.
  'a job cancelled by a user after its timeout was said to be lost in the shutdown': [
    { op: 'add', spec: spec({ ...ignores, timeout: 400 }) },
    { op: 'advance', ms: 1_000 },
    { op: 'cancel', at: 0 }
  ],
  // Seed 51084215.
  'a start that a limiter had granted counted although its job was cancelled before its body began': [
    { op: 'add', spec: spec({ ...ignores, queue: 'api' }) },
    { op: 'advance', ms: 1 },
    { op: 'race', at: 0, how: { later: 0, counted: false } },
    { op: 'add', spec: spec({ queue: 'api' }) }
  ]
}
