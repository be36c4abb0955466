import type { Done, Subject } from './index.ts'
import { create as createNamed } from './ours-named.ts'

/** Ours without a look at what the loop reads. */
export function create (done: Done): Promise<Subject> {
  return createNamed(done, { foreground: false })
}
