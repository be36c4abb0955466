/** BullMQ beside the others: a queue of its own that leaves nothing behind. Nobody works on it: only the add is measured. */
import { Queue } from 'bullmq'
import { Redis } from 'ioredis'

export interface OwnQueue {
  add (name: string, data: object): Promise<unknown>
  close (): Promise<void>
}

/** On the Redis that REDIS_URL names; the bench sets it for its children. */
export function openQueue (): OwnQueue {
  const redis = new Redis(process.env.REDIS_URL as string, { maxRetriesPerRequest: null })
  const queue = new Queue(`bench-${process.pid}`, { connection: redis, defaultJobOptions: { attempts: 5 } })
  return {
    add: (name, data) => queue.add(name, data),
    async close () {
      await queue.obliterate({ force: true })
      await queue.close()
      redis.disconnect()
    }
  }
}
