// @ts-check
/**
 * Flows. A fan-in: a report waits for its parts. A chain: each step waits for the one before. A batch: many jobs, and one
 * that runs when all have ended, however they did.
 *
 * @typedef {import('fastify-background-tasks').FlowJob} FlowJob
 * @typedef {import('fastify-background-tasks').JobContext} JobContext
 */

/**
 * Steps in the order of their running: each is the only child of the next, and finds its result in `children[0]`.
 * @param {FlowJob[]} steps
 * @returns {FlowJob}
 */
export function chain (steps) {
  const [first, ...rest] = steps
  if (first === undefined) throw new TypeError('expected at least one step')
  return rest.reduce((before, step) => ({ ...step, children: [before] }), first)
}

/**
 * Many jobs, and the one that runs when all of them have ended: which failed is in its `children`.
 * @param {FlowJob[]} jobs
 * @param {FlowJob} completion
 * @returns {FlowJob}
 */
export function batch (jobs, completion) {
  return { ...completion, children: jobs.map((job) => ({ ...job, options: { ...job.options, ignoreDependencyOnFailure: true } })) }
}

/** @param {import('fastify').FastifyInstance} app */
export default async function flows (app) {
  const { background } = app
  background.define('fetch', async (/** @type {{ region: string }} */ { region }) => ({ region, sum: region.length }))
  background.define('report', async (_payload, { children }) => children.map(({ result }) => result))
  background.define('download', async (/** @type {{ file: string }} */ { file }) => `${file} downloaded`)
  background.define('convert', async (_payload, { children: [before] }) => [before?.result, 'converted'])
  background.define('upload', async (_payload, { children: [before] }) => [before?.result, 'uploaded'])
  background.define('mail', { attempts: 1 }, async (/** @type {{ to: string }} */ { to }) => {
    if (!to.includes('@')) throw new Error('no address')
  })
  background.define('tell', async (_payload, { children }) => ({ sent: children.filter(({ state }) => state === 'completed').length, of: children.length }))

  app.post('/reports', async () => started(await background.flow({
    name: 'report',
    children: ['north', 'south'].map((region) => ({ name: 'fetch', payload: { region } }))
  })))

  app.post('/videos', async () => started(await background.flow(chain([{ name: 'download', payload: { file: 'a.mp4' } }, { name: 'convert' }, { name: 'upload' }]))))

  app.post('/newsletters', async () => started(await background.flow(batch(
    ['ada@example.org', 'nobody', 'grace@example.org'].map((to) => ({ name: 'mail', payload: { to } })),
    { name: 'tell' }
  ))))
}

/** @param {import('fastify-background-tasks').FlowHandle} flow */
function started ({ job }) {
  return { jobId: job.id, statusUrl: job.statusUrl }
}
