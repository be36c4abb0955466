/** How many timers of Node's stand behind very many running attempts, each with a timeout. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Task } from '../../../lib/index.ts'
import { createApp } from '../contenders/app.ts'
import { alarm } from '../measure.ts'

export interface TimeoutsSettings {
  readonly attempts: number
}

/** Ms until those that have not started are given up: a number that is missed must not hang the bench. */
const PATIENCE = 10_000

/** The highest concurrency a queue may have. */
const PER_QUEUE = 10_000

export async function prepare ({ attempts }: TimeoutsSettings) {
  const names = Array.from({ length: Math.ceil(attempts / PER_QUEUE) }, (_, i) => `q${i}`)
  let running = 0
  let slow!: Task
  const { background } = await createApp({ queues: Object.fromEntries(names.map((name) => [name, { concurrency: PER_QUEUE }])) }, (app) => {
    slow = app.background.define('slow', () => {
      running++
      return new Promise<never>(() => {}) // its process ends first
    })
  })

  async function measure () {
    const before = countTimers()
    for (let i = 0; i < attempts; i++) {
      // Timeouts that differ: one timer for equal ones would be no art.
      void background.add(slow, null, { queue: `q${i % names.length}`, timeout: 60_000 + i })
    }
    const givenUp = alarm(PATIENCE)
    while (running < attempts && !givenUp()) await sleep(10)
    return { running, timers: countTimers() - before }
  }

  return { measure }
}

function countTimers (): number {
  return process.getActiveResourcesInfo().filter((resource) => resource === 'Timeout').length
}
