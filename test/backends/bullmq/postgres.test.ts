import { PostgresConnection } from 'bullmq'
import { postgres } from '../../support/servers/postgres.ts'
import { testOn } from './on.ts'

await testOn(postgres, async (url) => {
  const { pool } = new PostgresConnection(url)
  await pool.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()')
  await pool.end()
})
