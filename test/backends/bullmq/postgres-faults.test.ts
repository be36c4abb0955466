import { PostgresConnection } from 'bullmq'
import { postgres } from '../../support/servers/postgres.ts'
import { faultsOn } from './faults.ts'

await faultsOn(postgres, async (url) => {
  const connection = new PostgresConnection(url)
  await connection.pool.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()')
  await connection.close()
})
