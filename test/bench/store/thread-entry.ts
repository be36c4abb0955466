/** The thread's side: what has come in is committed together, as on the loop. */
import { parentPort, workerData } from 'node:worker_threads'
import { openRows } from './raw.ts'

interface Message { readonly ask?: number, readonly payload?: string, readonly ended?: Array<{ ask: number, seq: number }> }

const rows = await openRows((workerData as { synchronous: 'full' | 'normal' }).synchronous)
let inbox: Message[] = []
parentPort?.on('message', (message: Message) => {
  if (inbox.push(message) === 1) setImmediate(commit)
})

function commit (): void {
  const messages = inbox
  inbox = []
  const added = messages.filter(({ payload }) => payload !== undefined)
  const ends = messages.flatMap(({ ended = [] }) => ended)
  rows.begin()
  const started = rows.insertAndClaim(added.map(({ payload }) => payload as string)).map((row, at) => ({ ...row, ask: added[at]?.ask as number }))
  rows.complete(ends.map(({ seq }) => seq))
  rows.commit()
  parentPort?.postMessage({ started, ended: ends.map(({ ask }) => ask) })
}
