// A mail server that keeps what it gets: the examples send real mail over real sockets, and nobody is written to.

import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { SMTPServer } from 'smtp-server'

/** delay: how long each mail takes, as real servers with their checks do · onMail: called with { to, subject } */
export async function startMailServer ({ port = 0, delay = 0, onMail = () => {} } = {}) {
  const mails = []

  async function receive (stream, session) {
    const source = await text(stream)
    await sleep(delay)
    const mail = {
      to: session.envelope.rcptTo.map(({ address }) => address).join(', '),
      subject: /^Subject: (.*)$/im.exec(source)?.[1].trim() ?? ''
    }
    mails.push(mail)
    onMail(mail)
  }

  const smtp = new SMTPServer({
    disabledCommands: ['AUTH', 'STARTTLS'],
    onData: (stream, session, done) => { receive(stream, session).then(() => done(), done) }
  })
  const { server } = smtp
  smtp.listen(port, '127.0.0.1')
  await once(server, 'listening')

  return { port: server.address().port, mails, close: promisify(smtp.close.bind(smtp)) }
}
