/** Who takes part. All run ten bodies at once, and all bodies are the same: an async function that calls `done`. */

/** Called in each body, with the number of its job: so the payload was read. */
export type Done = (i: number) => void

export interface Subject {
  /** Adds n light jobs in one go. `mixed`: ten priorities in turn. */
  fill (n: number, mixed: boolean): void
  /** Nothing starts between the two. Absent where the library has no such thing. */
  pause? (): unknown
  resume? (): unknown
  /** Called when all jobs have ended, before the CPU clock stops: the lookups that users make. */
  check? (): Promise<void>
}

/** Imported one alone: the others must not warm up or fill the process. */
const contenders = {
  'microtask limit': () => import('./microtask-limit.ts'),
  'fastq callback': () => import('./fastq-callback.ts'),
  'fastq promise': () => import('./fastq-promise.ts'),
  'p-limit': () => import('./p-limit.ts'),
  'p-queue bare': () => import('./p-queue-bare.ts'),
  'p-queue same': () => import('./p-queue-same.ts'),
  'ours inline': () => import('./ours-inline.ts'),
  'ours named': () => import('./ours-named.ts'),
  'ours, foreground off': () => import('./ours-foreground-off.ts'),
  'ours, no turns': () => import('./ours-no-turns.ts'),
  'ours, events heard': async () => ({ create: (await import('./ours-seen.ts')).heard }),
  'ours, logged': async () => ({ create: (await import('./ours-seen.ts')).logged }),
  'ours, metrics': async () => ({ create: (await import('./ours-seen.ts')).measured }),
  'ours, traced': async () => ({ create: (await import('./ours-seen.ts')).traced }),
  'only the clock': () => import('./only-the-clock.ts')
} satisfies Record<string, () => Promise<{ create (done: Done): Subject | Promise<Subject> }>>

export type Contender = keyof typeof contenders

export async function create (name: Contender, done: Done): Promise<Subject> {
  const contender = await contenders[name]()
  return contender.create(done)
}
