// One call to a partner's HTTP API, repeated with growing pauses while the partner is in trouble.

import { UnrecoverableError } from 'fastify-background-tasks'

export function defineSyncPartner (app, partners) {
  const options = {
    attempts: 3,
    timeout: 10_000,
    schema: {
      type: 'object',
      required: ['partner'],
      additionalProperties: false,
      properties: { partner: { enum: Object.keys(partners) } }
    }
  }

  return app.background.define('sync-partner', options, async ({ partner }, { job, signal }) => {
    const response = await fetch(new URL('sync', partners[partner]), {
      method: 'POST',
      // A partner that did the work and lost its answer knows the next attempt by this key.
      headers: { 'idempotency-key': job.id },
      signal
    })
    if (response.ok) return response.json()

    await response.body?.cancel()
    const message = `partner ${partner} answered ${response.status}`
    // 4xx says that the call itself is wrong: repeating it changes nothing.
    const error = response.status < 500 ? new UnrecoverableError(message) : new Error(message)
    // The status route shows the code to everybody, and no text.
    throw Object.assign(error, { code: `PARTNER_${response.status}` })
  })
}
