/** What the test files of both stores begin with. */
import 'bullmq' // loaded before any test looks at what is open
import t from 'tap'
import { backendContract } from '../../support/contract.ts'
import { findServer, type Kind } from '../../support/servers/find.ts'
import { storeAt, type Store } from './store.ts'

/** The store, which is gone when the tests of the file have ended; or undefined, and the file is skipped. */
export async function onStore (kind: Kind): Promise<Store | undefined> {
  const found = await findServer(kind)
  if (typeof found === 'string') {
    t.plan(0, found)
    return undefined
  }
  t.teardown(found.release)
  return storeAt(kind, found.url)
}

export function contractOn (store: Store, rest: number): void {
  backendContract(`BullMQ over ${store.kind.name}`, {
    rest,
    create: () => store.create(),
    gaps: {
      'a job can be read when its end is told, even where nothing is kept': 'BullMQ removes what is not kept in the same step in which it ends',
      ...(store.kind.name === 'postgres' ? {
        'a retried dead letter starts again at attempt 1, and keeps its history': 'on PostgreSQL BullMQ forgets how a job failed when it starts again'
      } : undefined),
      'dead letters are retried with the spacing asked for': 'BullMQ starts a dead letter again at once: until its turn it stays one',
      'a dead letter that starts again takes its deduplication id again, unless another job has it': 'BullMQ starts it again without its id'
    }
  })
}
