/** The README's table of what each backend can, from what the backends say of themselves. `npm run capabilities` writes it. */
import type { Backend } from '../../lib/backend.ts'
import { bullmq } from '../../lib/backends/bullmq/index.ts'
import { sqlite } from '../../lib/backends/sqlite/index.ts'
import { memory, type Capabilities } from '../../lib/index.ts'

const backends: readonly Backend[] = [memory(), sqlite({ path: 'jobs.db' }), bullmq({ connection: 'redis://localhost' })]

interface Row {
  readonly label: string
  readonly has: (backend: Backend) => boolean
  /** By the backend's name: what is to be said beside yes or no. */
  readonly notes: Readonly<Record<string, string>>
}

function can (capability: keyof Capabilities, notes: Row['notes'] = {}, label = `\`${capability}\``): Row {
  return { label, has: ({ capabilities }) => capabilities[capability] === true, notes }
}

/** Every capability has its row, or this does not compile. */
const CAPABILITIES: Readonly<Record<keyof Capabilities, Row>> = {
  inline: can('inline', { sqlite: 'they live in memory', bullmq: 'they live in memory' }, '`inline` functions'),
  delay: can('delay'),
  ttl: can('ttl'),
  priority: can('priority'),
  limiter: can('limiter', { sqlite: 'over all processes', bullmq: 'over all processes, in fixed windows' }),
  deduplication: can('deduplication', { bullmq: 'a retried dead letter does not take its id again' }),
  groups: can('groups'),
  cancelled: can('cancelled', {}, '`cancelled` jobs are kept'),
  patch: can('patch', {}, '`patch`: dead letters with another payload')
}

const PARTS: readonly Row[] = [
  { label: '`flow()`', has: ({ flows }) => flows !== undefined, notes: { bullmq: 'a child that is taken out before it ran does not fail its parent' } },
  { label: '`schedule()`', has: ({ schedules }) => schedules !== undefined, notes: { sqlite: 'one firing for all processes', bullmq: 'as BullMQ\'s job schedulers' } },
  { label: '`schedule()` with `overlap: \'queue\'`', has: ({ schedules }) => schedules?.overlaps.includes('queue') === true, notes: {} }
]

function lineOf ({ label, has, notes }: Row): string {
  const cells = backends.map((backend) => (has(backend) ? 'yes' : 'no') + (backend.name in notes ? `: ${notes[backend.name]}` : ''))
  return `| ${[label, ...cells].join(' | ')} |`
}

const MARKS = ['<!-- npm run capabilities -->', '<!-- end of it -->'] as const

/** The README with the table between its marks. */
export function withCapabilities (readme: string): string {
  const [begin, end] = MARKS.map((mark) => readme.indexOf(mark)) as [number, number]
  if (begin === -1 || end < begin) throw new Error(`expected ${MARKS.join(' and ')} in the README`)
  const head = [`| | ${backends.map(({ name }) => name).join(' | ')} |`, '|---|---|---|---|']
  const table = [...head, ...[...Object.values(CAPABILITIES), ...PARTS].map(lineOf)]
  return `${readme.slice(0, begin)}${MARKS[0]}\n${table.join('\n')}\n\n${readme.slice(end)}`
}
