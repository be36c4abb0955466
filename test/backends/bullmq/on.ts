/** All tests of one of BullMQ's stores, in one file: loading what they need takes longer than most of them. */
import { PostgresConnection } from 'bullmq' // loaded before any test looks at what is open
import t from 'tap'
import type { Backend } from '../../../lib/backend.ts'
import { backendContract } from '../../support/contract.ts'
import { findServer, type Kind } from '../../support/servers/find.ts'
import { countsOn } from './counts.ts'
import { faultsOn } from './faults.ts'
import { interopOn } from './interop.ts'
import { processesOn } from './processes.ts'
import { racesOn } from './races.ts'
import { schedulesOn } from './schedules.ts'
import { secureOn } from './secure.ts'
import { newSpace, storeAt, type Store } from './store.ts'

/** `cut`: ends all connections to a server but its own. */
export async function testOn (kind: Kind, cut: (url: string) => Promise<void>): Promise<void> {
  const found = await findServer(kind)
  if (typeof found === 'string') {
    t.plan(0, found)
    return
  }
  t.teardown(found.release)
  const store = storeAt(kind, found.url)
  await contractOn(store)
  // These mostly wait: for locks to end, for servers that are away.
  t.jobs = 4
  await Promise.all([interopOn(store), secureOn(store), processesOn(store), racesOn(store), schedulesOn(store), countsOn(store), faultsOn(kind, cut)])
}

function contractOn (store: Store): Promise<unknown> {
  return backendContract(`BullMQ over ${store.kind.name}`, {
    rest: 100,
    // Each connection to PostgreSQL is a process of its own.
    atOnce: store.kind.name === 'redis' ? 6 : 4,
    create: store.kind.name === 'redis' ? () => store.create() : onUsedSchemas(store),
    gaps: {
      'a job can be read when its end is told, even where nothing is kept': 'BullMQ removes what is not kept in the same step in which it ends',
      ...(store.kind.name === 'postgres' ? {
        'a retried dead letter starts again at attempt 1, and keeps its history': 'on PostgreSQL BullMQ forgets how a job failed when it starts again',
        'a dead child that is retried does not count twice': 'on PostgreSQL BullMQ takes its second end for that of another child'
      } : undefined),
      'dead letters are retried with the spacing asked for': 'BullMQ starts a dead letter again at once: until its turn it stays one',
      'a dead letter that starts again takes its deduplication id again, unless another job has it': 'BullMQ starts it again without its id',
      'a start that was granted and never happened does not count': 'BullMQ counts a job when it hands it out',
      'a child that is cancelled fails its parent': 'BullMQ takes it out, and its parent goes on without it',
      'a parent that waits longer than its ttl expires': 'BullMQ looks at it when it would start'
    }
  })
}

/** BullMQ makes its tables in 100 ms: those of a test that has ended are emptied for the next. */
function onUsedSchemas (store: Store): () => Backend {
  const free: string[] = []
  return () => {
    const schema = free.pop() ?? newSpace()
    const backend = store.create(store.options(schema))
    const close = backend.close.bind(backend)
    let closing: Promise<void> | undefined
    backend.close = () => (closing ??= (async () => {
      await close()
      await empty(store.url, schema)
      free.push(schema)
    })())
    return backend
  }
}

async function empty (url: string, schema: string): Promise<void> {
  const { pool } = new PostgresConnection({ connectionString: url, max: 1 })
  await pool.query(`DO $$ DECLARE one text; BEGIN
    FOR one IN SELECT tablename FROM pg_tables WHERE schemaname = '${schema}' AND tablename <> 'migration'
    LOOP EXECUTE format('DELETE FROM %I.%I', '${schema}', one); END LOOP; END $$`)
  await pool.end()
}
