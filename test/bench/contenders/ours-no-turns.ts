import { memory, type Clock } from '../../../lib/index.ts'
import { systemClock } from '../../../lib/clock.ts'
import type { Done, Subject } from './index.ts'
import { create as createNamed } from './ours-named.ts'

/** Ours, if it never gave way: its "later turn" comes at once. What remains against it is the price of the turns. */
export function create (done: Done): Promise<Subject> {
  const clock: Clock = { ...systemClock, soon: queueMicrotask }
  return createNamed(done, { backend: memory({ clock }) })
}
