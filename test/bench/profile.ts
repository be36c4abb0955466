/** Where a measurement spends its time, by V8's own sampling profiler: the functions with the most time of their own. */
import type { Profiler } from 'node:inspector'
import { Session } from 'node:inspector/promises'
import { relative } from 'node:path'
import { fileURLToPath } from 'node:url'

export interface Share {
  readonly place: string
  /** Of the time in which the thread was not idle. */
  readonly share: number
}

const SHOWN = 15
/** µs between two samples. */
const INTERVAL = 250

/** Profiles this process while it works. */
export async function profile (work: () => Promise<unknown>): Promise<Share[]> {
  const session = new Session()
  session.connect()
  await session.post('Profiler.enable')
  await session.post('Profiler.setSamplingInterval', { interval: INTERVAL })
  await session.post('Profiler.start')
  await work()
  const { profile: recorded } = await session.post('Profiler.stop')
  session.disconnect()
  return selfTimes(recorded)
}

function selfTimes ({ nodes, samples = [], timeDeltas = [] }: Profiler.Profile): Share[] {
  const places = new Map(nodes.map(({ id, callFrame }) => [id, placeOf(callFrame)]))
  const times = new Map<string, number>()
  let total = 0
  for (const [at, node] of samples.entries()) {
    const place = places.get(node) as string
    if (place === '(idle)') continue
    const time = timeDeltas[at] as number
    times.set(place, (times.get(place) ?? 0) + time)
    total += time
  }
  return [...times].map(([place, time]) => ({ place, share: time / total })).sort((a, b) => b.share - a.share).slice(0, SHOWN)
}

function placeOf ({ functionName, url, lineNumber }: Profiler.Profile['nodes'][number]['callFrame']): string {
  const name = functionName === '' ? '(anonymous)' : functionName
  if (url === '') return name
  return `${name}  ${url.startsWith('file:') ? relative(process.cwd(), fileURLToPath(url)) : url}:${lineNumber + 1}`
}
