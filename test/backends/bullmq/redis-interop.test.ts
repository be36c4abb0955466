import { redis } from '../../support/servers/redis.ts'
import { interopOn } from './interop.ts'

await interopOn(redis)
