/** plainjob on better-sqlite3. Its worker takes one job at a time; it is stopped at the last, before it would sleep and look again. */
import { better, defineQueue, defineWorker } from 'plainjob'
import { openOther } from '../../support/sqlite.ts'
import { freshPath } from './file.ts'
import { payload, type StoreSettings, type StoreSubject } from './index.ts'

const logger = { error: console.error, warn () {}, info () {}, debug () {} }

export async function create ({ synchronous }: StoreSettings): Promise<StoreSubject> {
  const connection = better(openOther(freshPath()))
  const queue = defineQueue({ connection, logger })
  connection.pragma(`synchronous = ${synchronous}`)
  let left = 0
  const worker = defineWorker('light', async ({ data }) => { JSON.parse(data) }, {
    queue,
    logger,
    onCompleted () { if (--left === 0) void worker.stop() }
  })
  return {
    async batch (n) {
      left = n
      if (n === 1) queue.add('light', payload(0))
      else queue.addMany('light', Array.from({ length: n }, (_, i) => payload(i)))
      await worker.start()
    },
    async close () { queue.close() }
  }
}
