import { Redis } from 'ioredis'
import { redis } from '../../support/servers/redis.ts'
import { testOn } from './on.ts'

await testOn(redis, async (url) => {
  const client = new Redis(url)
  await client.client('KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  client.disconnect()
})
