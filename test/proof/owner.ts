/** Only who holds the attempt may settle its job: two late verdicts on the bare backend, which the plugin never sends. */
import { memory } from '../../lib/backends/memory/index.ts'
import type { Attempt, NewJob } from '../../lib/job.ts'
import { TASK_DEFAULTS } from '../../lib/job-options.ts'
import { TestClock } from '../support/clock.ts'
import { SETTINGS } from './plan.ts'

export async function checkOwner (): Promise<void> {
  const clock = new TestClock()
  const backend = memory({ clock })
  const delivered: Attempt[] = []
  await backend.start(
    { deliver: (attempts) => { delivered.push(...attempts) }, abort () {}, report () {} },
    { queues: new Map([['default', { limiter: undefined }]]), retention: SETTINGS.retention, maxHold: 300_000 }
  )
  backend.want('default', 1)
  const job: NewJob = {
    id: 'a', name: 'task', queue: 'default', payload: null, bytes: 4, createdAt: clock.now(), requestId: null, policy: TASK_DEFAULTS, local: undefined, order: 1
  }
  await backend.enqueue([job], false)
  await clock.settle()
  const error = { name: 'Error', code: null, message: 'again' }
  await backend.settle(delivered[0] as Attempt, { kind: 'retry', delay: 0, error, charged: true })
  await clock.settle()
  const faults: string[] = []
  const look = async (when: string, state: string): Promise<void> => {
    const record = await backend.get('a')
    if (record?.state !== state) faults.push(`${when} the job is ${record?.state}, not ${state}`)
  }
  await look('with its second attempt', 'active')
  await backend.settle(delivered[0] as Attempt, { kind: 'completed' })
  await look('after a late verdict of the first attempt', 'active')
  await backend.settle(delivered[1] as Attempt, { kind: 'completed' })
  await backend.settle(delivered[1] as Attempt, { kind: 'dead', error, failure: 'exhausted' })
  await look('after a second verdict of the same attempt', 'completed')
  await backend.close()
  if (faults.length > 0) throw new Error(faults.join('; '))
}
