/** What raw SQLite is worth when the file has a thread of its own. */
import { payload, type StoreSettings, type StoreSubject } from './index.ts'
import { openThread } from './thread.ts'

export async function create ({ synchronous }: StoreSettings): Promise<StoreSubject> {
  const thread = openThread(synchronous)
  return {
    async batch (n) { await Promise.all(Array.from({ length: n }, (_, i) => thread.ask(JSON.stringify(payload(i))))) },
    close: () => thread.close()
  }
}
