/**
 * Metrics for Prometheus, made with the application's own prom-client or a library like it. What happens is counted from
 * the events of this application; what is, is read at each scrape.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { FastifyInstance, FastifyPluginAsync } from 'fastify'
import fp from 'fastify-plugin'
import * as check from '../check.ts'
import { PREFIX, type AppEvent, type BackgroundEvents } from '../events.ts'
import { Names, type MetricsClient } from './client.ts'
import { createCounters } from './counters.ts'
import { createGauges } from './gauges.ts'

export type { CounterLike, GaugeLike, HistogramLike, MetricConfig, MetricsClient } from './client.ts'

/** Options of the metrics plugin. */
export interface MetricsOptions {
  /** prom-client, or what has its `Counter`, `Gauge` and `Histogram`. @default `app.metrics.client`, of fastify-metrics */
  client?: MetricsClient | undefined
  /** The registry, for a process with several. @default the client's own */
  register?: object | undefined
  /** Before each name. @default 'background_' */
  namePrefix?: string | undefined
  /** Upper bounds in seconds, rising, of the histograms. @default 0.005 to 300 */
  buckets?: readonly number[] | undefined
}

const BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300]
/** Tasks, or queues, with series of their own. */
const MOST_NAMES = 200

const aClient: check.Check = (value) => {
  const client = value as Partial<MetricsClient> | null | undefined
  return [client?.Counter, client?.Gauge, client?.Histogram].every((made) => typeof made === 'function') ? undefined : 'prom-client, or what has its Counter, Gauge and Histogram'
}
const CHECKS: check.Checks = {
  client: aClient,
  register: (value) => typeof value === 'object' && value !== null ? undefined : 'a registry',
  namePrefix: (value) => typeof value === 'string' && /^[a-zA-Z_][a-zA-Z0-9_]*$/.test(value) ? undefined : 'a name of letters, digits and _',
  buckets: (value) => Array.isArray(value) && value.length > 0 && value.every((bound, n) => typeof bound === 'number' && bound > ((value as number[])[n - 1] ?? 0))
    ? undefined : 'rising numbers of seconds'
}

const plugin: FastifyPluginAsync<MetricsOptions> = async (app, options) => {
  const given = check.options<MetricsOptions>('metrics options', CHECKS, options)
  const { client = (app as { metrics?: { client?: unknown } }).metrics?.client, register, namePrefix: prefix = 'background_', buckets = BUCKETS } = given
  check.must('metrics options.client, without fastify-metrics', aClient, client)
  const names = { task: new Names(MOST_NAMES), queue: new Names(MOST_NAMES) }
  const maker = { client: client as MetricsClient, prefix, registers: register === undefined ? {} : { registers: [register as never] }, names }
  const counters = createCounters(maker, buckets)
  createGauges(maker, () => app.background.stats())

  const stops: Array<() => void> = []
  for (const [name, count] of Object.entries(counters.on) as Array<[keyof BackgroundEvents, (event: never) => void]>) {
    const listen = (event: unknown): void => {
      if (!isOf(app, event as AppEvent)) return
      try {
        count(event as never)
      } catch (error) {
        app.log.error({ err: error }, 'a metric could not be counted') // what a subscriber throws would end the process
      }
    }
    subscribe(PREFIX + name, listen)
    stops.push(() => { unsubscribe(PREFIX + name, listen) })
  }
  app.addHook('onReady', async () => { counters.begin((await app.background.stats()).tasks) })
  app.addHook('onClose', async () => { for (const stop of stops) stop() })
}

/** Whether the event is of the job system that this instance sees: a child is made with its parent as prototype. */
function isOf (app: FastifyInstance, event: AppEvent): boolean {
  return event.app === app || Object.prototype.isPrototypeOf.call(event.app, app)
}

/**
 * To be registered after `fastify-background-tasks`.
 * @throws FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION
 */
export const metrics: FastifyPluginAsync<MetricsOptions> = fp(plugin, {
  name: 'fastify-background-tasks-metrics',
  fastify: '5.x',
  dependencies: ['fastify-background-tasks']
})
export default metrics
