import { redis } from '../../support/servers/redis.ts'
import { processesOn } from './processes.ts'

await processesOn(redis)
