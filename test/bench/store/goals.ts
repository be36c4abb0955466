/** What jobs that are kept should cost. */
import { atLeast, atMost, beyond, quotient, type Find, type Goal } from '../goals.ts'
import { ratio } from '../report.ts'

export function storeGoals (row: Find): Goal[] {
  const times = (group: string, name: string, over: string): number | undefined => ratio(row(group, over), row(group, name), 'wall')
  const both = ['normal', 'full'] as const
  return [
    ...both.flatMap((how) => [1, 100].map((n) => {
      const group = `store-${n}`
      return atLeast(group, `kept jobs/s, ${n} in flight, ${how}: of raw SQLite with the same commits`, 0.6, times(group, `ours, ${how}`, `raw, ${how}`))
    })),
    atLeast('store-100', 'kept jobs/s, 100 in flight, normal: of BullMQ', 10, times('store-100', 'ours, normal', 'BullMQ')),
    atLeast('store-100', 'kept jobs/s, 100 in flight, full: of BullMQ', 8, times('store-100', 'ours, full', 'BullMQ')),
    atLeast('store-100', 'kept jobs/s, 100 in flight, normal: of plainjob', 4, times('store-100', 'ours, normal', 'plainjob, normal')),
    ...both.map((how) => atMost('store-100', `CPU of the main thread for a kept job, ${how}, µs`, 30, row('store-100', `ours, ${how}`)?.values.main?.median)),
    atLeast('store-route', 'requests/s of a route with a kept job, normal, of the bare one', 0.65, times('store-route', 'ours, normal', 'bare')),
    atLeast('store-route', 'requests/s of a route with a kept job, full, of the bare one', 0.5, times('store-route', 'ours, full', 'bare')),
    atMost('store-backlog', 'a kept job while 1,000,000 wait, over 1,000', 1.3, quotient(row('store-backlog', '1,000,000 waiting')?.values.cpu, row('store-backlog', '1,000 waiting')?.values.cpu)),
    ...both.map((how) => atMost('store-delay', `1,000 jobs a second: p99 of the loop's delay beyond idle, ${how}, ms`, 2,
      beyond(row('store-delay', `ours, ${how}`)?.values.p99, row('store-delay', 'no jobs')?.values.p99)))
  ]
}
