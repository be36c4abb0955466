/**
 * Traces with OpenTelemetry: a PRODUCER span where a job is handed over, a CONSUMER span for each attempt, linked to it. An
 * attempt may come hours later, and again: so it is a trace of its own, not a part of the request's.
 */
import type { FastifyPluginAsync } from 'fastify'
import fp from 'fastify-plugin'
import { errors } from '../errors.ts'
import { importPeer } from '../peer.ts'
import { createTracer } from './spans.ts'

export { requestContext, type RequestContextOptions } from './request-context.ts'

const plugin: FastifyPluginAsync = async (app) => {
  try {
    const api = await importPeer('tracing', '@opentelemetry/api', () => import('@opentelemetry/api'))
    app.background.propagate(createTracer(api))
  } catch (error) {
    if (!(error instanceof errors.PeerMissing)) throw error
    app.log.info('background jobs are not traced: the package @opentelemetry/api is not installed')
  }
}

/** To be registered after `fastify-background-tasks`. Without the package `@opentelemetry/api`, or without an SDK, it does nothing. */
export const tracing: FastifyPluginAsync = fp(plugin, {
  name: 'fastify-background-tasks-tracing',
  fastify: '5.x',
  dependencies: ['fastify-background-tasks']
})
export default tracing
