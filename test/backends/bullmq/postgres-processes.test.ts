import { postgres } from '../../support/servers/postgres.ts'
import { processesOn } from './processes.ts'

await processesOn(postgres)
