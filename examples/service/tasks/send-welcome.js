// One welcome mail over SMTP.

import { createTransport } from 'nodemailer'

const options = {
  // Somebody is waiting for this one: before thumbnails and partners when there is more to do than may run at once.
  priority: 10,
  attempts: 5,
  timeout: 20_000,
  // A 5xx answer of a mail server is final, such as an address that does not exist; all else is worth another try.
  retryIf: (error) => !(error.responseCode >= 500),
  schema: {
    type: 'object',
    required: ['to', 'name'],
    additionalProperties: false,
    properties: { to: { type: 'string', format: 'email' }, name: { type: 'string' } }
  }
}

export function defineSendWelcome (app, { host, port }) {
  const transport = createTransport({ host, port })

  return app.background.define('send-welcome', options, async ({ to, name }, { job, signal, log }) => {
    const { messageId } = await transport.sendMail({
      // The same id on every attempt, so that a mail that was sent twice can be seen as one.
      messageId: `<${job.id}@service.example>`,
      from: 'Service <hello@service.example>',
      to: { name, address: to },
      subject: `Welcome, ${name}`,
      text: `Hello ${name}, your account is ready.`,
      signal
    })
    log.info({ messageId }, 'welcome mail handed over')
    return { messageId }
  })
}
