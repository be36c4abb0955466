/** The short form of the soak; the long one, with a sharper bound, is `npm run soak`. */
import t from 'tap'
import { soak } from './proof/soak-run.ts'

/**
 * Bytes a job. So short a run measures the engine's own warm-up too; a job that leaves an object behind leaves more
 * than this.
 */
const BOUND = 20

t.test('60 000 jobs of all kinds, with overload: each ends as it was meant to, and the heap stays flat', async (t) => {
  const { load, samples, slope } = await soak(60_000, () => {})
  t.same(load.faults, [])
  t.ok(load.jobs >= 60_000 && load.refused > 10_000, `${load.jobs} accepted, ${load.refused} refused`)
  t.ok(load.requests > 0 && load.collected === load.requests, `${load.collected} closures over requests let go`)
  t.ok(slope < BOUND, `${slope.toFixed(2)} bytes a job`, { samples })
})
