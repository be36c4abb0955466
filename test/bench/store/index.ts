/** The stores that are compared. Each keeps its jobs, runs them, a hundred at once, and keeps their ends; all bodies do the same: nothing. */

export interface StoreSubject {
  /** So many jobs, added by one call where there is one. Resolves when their ends are kept too. */
  batch (n: number): Promise<void>
  close (): Promise<void>
}

export interface StoreSettings {
  /** Of a SQLite file: a commit waits for the disk, or not. */
  readonly synchronous: 'full' | 'normal'
}

/** A payload as small ones are. */
export const payload = (i: number): { i: number, to: string } => ({ i, to: 'ada@example.org' })

/** Imported one alone: the others must not warm up or fill the process. */
const stores = {
  'raw SQLite': () => import('./raw.ts'),
  'raw SQLite in a thread': () => import('./raw-thread.ts'),
  'ours': () => import('./ours.ts'),
  'plainjob': () => import('./plainjob.ts'),
  'BullMQ': () => import('./bullmq.ts')
} satisfies Record<string, () => Promise<{ create (settings: StoreSettings): Promise<StoreSubject> }>>

export type Store = keyof typeof stores

export async function create (name: Store, settings: StoreSettings): Promise<StoreSubject> {
  return (await stores[name]()).create(settings)
}
