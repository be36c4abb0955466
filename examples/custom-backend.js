// @ts-check
/**
 * A backend of your own: the one in memory, and a journal on disk. Each job is a line in a file before `enqueue` resolves;
 * what had not ended when the process did is added again at the next start. A real one keeps its jobs elsewhere and does
 * without the one in memory; what it has to promise says the comment in lib/backend.ts, and test/support/contract.ts
 * asks for each of these promises.
 */
import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import { memory } from 'fastify-background-tasks'

/**
 * @param {{ path: string, clock?: import('fastify-background-tasks').Clock }} options
 * @returns {import('fastify-background-tasks').Backend}
 */
export function journal ({ path, clock }) {
  const inner = memory(clock && { clock })
  /** @param {object[]} entries */
  const write = (entries) => { appendFileSync(path, entries.map((entry) => `${JSON.stringify(entry)}\n`).join('')) }

  /** The jobs of the journal that have not ended, in the order of their making. */
  function unfinished () {
    const jobs = new Map()
    for (const line of existsSync(path) ? readFileSync(path, 'utf8').split('\n') : []) {
      if (line === '') continue
      const { job, ended } = JSON.parse(line)
      if (job !== undefined) jobs.set(job.id, job)
      else jobs.delete(ended)
    }
    return [...jobs.values()]
  }

  /** @type {Partial<import('fastify-background-tasks').Backend>} */
  const own = {
    name: 'journal',
    durable: true,
    // A function has no line in a file. What is false is refused by name, at `ready()` or at the call.
    capabilities: { ...inner.capabilities, inline: false },
    flows: undefined, // they would have to be in the journal as wholes

    async start (sink, settings) {
      await inner.start(sink, settings)
      await inner.watch(({ id, state }) => { if (['completed', 'failed', 'cancelled'].includes(state)) write([{ ended: id }]) })
      // Functions of a policy (`retryIf`, `backoff`) are those of the task, as it is defined now.
      const jobs = unfinished().map((job) => ({ ...job, local: undefined, policy: { ...settings.policyOf?.(job.name), ...job.policy, runAt: NaN } }))
      await inner.enqueue(jobs, false)
    },

    async enqueue (jobs, staged) {
      const copies = jobs.map(({ id, name, queue, payload, bytes, createdAt, requestId, policy, carrier, order }) =>
        ({ id, name, queue, payload, bytes, createdAt, requestId, policy, carrier, order, local: undefined }))
      const duplicates = await inner.enqueue(copies, staged) // throws before anything has changed
      write(copies.filter(({ id }) => !duplicates?.has(id)).map((job) => ({ job })))
      return duplicates
    }
  }
  // Everything else is the memory's own.
  return new Proxy(inner, {
    get (target, key) {
      const value = Reflect.get(key in own ? own : target, key)
      return typeof value === 'function' ? value.bind(key in own ? own : target) : value
    }
  })
}
