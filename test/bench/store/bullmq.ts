/** BullMQ on the Redis that REDIS_URL names, which the bench sets for its children. */
import { Queue, Worker } from 'bullmq'
import { Redis } from 'ioredis'
import { countdown } from '../measure.ts'
import { payload, type StoreSubject } from './index.ts'

export async function create (): Promise<StoreSubject> {
  const connection = new Redis(process.env.REDIS_URL as string, { maxRetriesPerRequest: null })
  const name = `bench-store-${process.pid}`
  const queue = new Queue(name, { connection, defaultJobOptions: { attempts: 5 } })
  const ends = countdown()
  const worker = new Worker(name, async () => {}, { connection, concurrency: 100 })
  worker.on('completed', () => { ends.done() })
  await worker.waitUntilReady()
  return {
    async batch (n) {
      const ended = ends.expect(n)
      if (n === 1) await queue.add('light', payload(0))
      else await queue.addBulk(Array.from({ length: n }, (_, i) => ({ name: 'light', data: payload(i) })))
      await ended
    },
    async close () {
      await worker.close()
      await queue.obliterate({ force: true })
      await queue.close()
      connection.disconnect()
    }
  }
}
