import { Redis } from 'ioredis'
import { redis } from '../../support/servers/redis.ts'
import { faultsOn } from './faults.ts'

await faultsOn(redis, async (url) => {
  const client = new Redis(url)
  await client.client('KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  client.disconnect()
})
