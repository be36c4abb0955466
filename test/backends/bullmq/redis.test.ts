import { redis } from '../../support/servers/redis.ts'
import { contractOn, onStore } from './on.ts'

const store = await onStore(redis)
if (store !== undefined) contractOn(store, 60)
