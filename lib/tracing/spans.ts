/** Spans by the semantic conventions for messaging. */
import type * as OpenTelemetry from '@opentelemetry/api'
import { describe } from '../describe.ts'
import type { Outcome } from '../job.ts'
import type { AttemptMade, AttemptScope, JobMade, Propagator } from '../propagator.ts'

type Api = typeof OpenTelemetry

const NAME = 'fastify-background-tasks'

export function createTracer (api: Api): Propagator {
  const { context, propagation, ROOT_CONTEXT, SpanKind, trace } = api

  function inject (job: JobMade, carrier: Record<string, string>): void {
    const span = trace.getTracer(NAME).startSpan(`send ${job.name}`, { kind: SpanKind.PRODUCER, attributes: attributesOf('send', job, job.bytes) })
    try {
      propagation.inject(trace.setSpan(context.active(), span), carrier)
    } finally {
      span.end() // handed over: what becomes of the job is told by its attempts
    }
  }

  function extract ({ job, carrier, bytes, waitMs }: AttemptMade): AttemptScope {
    const sender = propagation.extract(ROOT_CONTEXT, carrier)
    const producer = trace.getSpanContext(sender)
    const span = trace.getTracer(NAME).startSpan(`process ${job.name}`, {
      kind: SpanKind.CONSUMER,
      attributes: { ...attributesOf('process', job, bytes), 'background.attempt': job.attempt, 'background.wait_ms': waitMs },
      links: producer === undefined ? [] : [{ context: producer }]
    }, ROOT_CONTEXT)
    // With the sender's baggage.
    const active = trace.setSpan(sender, span)
    return {
      run: (work) => context.with(active, work),
      end (outcome, error) {
        endSpan(api, span, outcome, error)
      }
    }
  }

  return { inject, extract }
}

function attributesOf (operation: 'send' | 'process', job: Pick<JobMade, 'id' | 'name' | 'queue' | 'requestId'>, bytes: number): OpenTelemetry.Attributes {
  return {
    'messaging.system': NAME,
    'messaging.operation.name': operation,
    'messaging.operation.type': operation,
    'messaging.destination.name': job.queue,
    'messaging.message.id': job.id,
    'messaging.message.body.size': bytes,
    'background.task': job.name,
    ...(job.requestId === null ? undefined : { 'background.request_id': job.requestId })
  }
}

function endSpan ({ SpanStatusCode }: Api, span: OpenTelemetry.Span, outcome: Outcome, error: unknown): void {
  span.setAttribute('background.outcome', outcome.kind)
  if (outcome.kind === 'retry' || outcome.kind === 'dead') {
    // Described first: what was thrown may be anything.
    const { name, message, code, stack } = error === undefined ? outcome.error : describe(error)
    span.setAttribute('error.type', code ?? name)
    span.recordException({ name, message, ...(code === null ? undefined : { code }), ...(stack === undefined ? undefined : { stack }) })
    span.setStatus({ code: SpanStatusCode.ERROR, message })
  }
  if (outcome.kind === 'dead') span.setAttribute('background.failure', outcome.failure)
  if (outcome.kind === 'cancelled') span.setAttribute('background.reason', outcome.reason)
  span.end()
}
