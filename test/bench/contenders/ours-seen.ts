/** Ours, and somebody looks: what each way to see its jobs costs. */
import { subscribe } from 'node:diagnostics_channel'
import { context, propagation, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { W3CTraceContextPropagator } from '@opentelemetry/core'
import { BasicTracerProvider, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import promClient from 'prom-client'
import { metrics } from '../../../lib/metrics/index.ts'
import { tracing } from '../../../lib/tracing/index.ts'
import type { Done, Subject } from './index.ts'
import { create } from './ours-named.ts'

/** A line for each job, and nobody who reads it. */
export function logged (done: Done): Promise<Subject> {
  return create(done, {}, { server: { logger: { level: 'info', stream: { write () {} } } } })
}

/** One subscriber of one channel. */
export function heard (done: Done): Promise<Subject> {
  subscribe('fastify-background-tasks:ended', () => {})
  return create(done)
}

export function measured (done: Done): Promise<Subject> {
  return create(done, {}, { define: (app) => { app.register(metrics, { client: promClient }) } })
}

/** With the SDK; every span is recorded, and goes nowhere. */
export function traced (done: Done): Promise<Subject> {
  const exporter = { export: (_spans: unknown, told: (result: { code: number }) => void) => { told({ code: 0 }) }, shutdown: async () => {} }
  trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }))
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  propagation.setGlobalPropagator(new W3CTraceContextPropagator())
  return create(done, {}, { define: (app) => { app.register(tracing) } })
}
