// npm start: the service for a person with curl, with a local mail server and local partners, so that nothing else is
// needed. Prints the lines to try; Ctrl-C lets running jobs end first.
//
// PORT (3000), HOST (127.0.0.1) and LOG_LEVEL (info) change the service; SMTP_HOST and SMTP_PORT (25) send the mails to
// another server; ADMIN_TOKEN replaces the token made at start.

import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import closeWithGrace from 'close-with-grace'
import { startMailServer } from '../local/mail-server.js'
import { startPartnerServer } from '../local/partner-server.js'
import { sampleImage } from '../local/sample-image.js'
import { buildApp } from './app.js'

const { PORT = 3000, HOST = '127.0.0.1', LOG_LEVEL = 'info', SMTP_HOST, SMTP_PORT = 25 } = process.env
const adminToken = process.env.ADMIN_TOKEN ?? randomBytes(12).toString('hex')

const folder = await mkdtemp(join(tmpdir(), 'background-tasks-'))
const image = join(folder, 'sample.jpg')
await writeFile(image, await sampleImage())

const mailServer = await startMailServer({
  delay: 400,
  onMail: ({ to, subject }) => console.log(`mail to ${to}: ${subject}`)
})
const partnerServer = await startPartnerServer()

const app = await buildApp({
  smtp: SMTP_HOST ? { host: SMTP_HOST, port: Number(SMTP_PORT) } : { host: '127.0.0.1', port: mailServer.port },
  partners: partnerServer.partners,
  folder,
  adminToken,
  logger: { level: LOG_LEVEL }
})

// Fastify closes within the ten seconds that close-with-grace allows; the servers that jobs talk to go last.
closeWithGrace({ delay: 10_000 }, async ({ signal, err }) => {
  if (err) app.log.error({ err }, 'closing after an error')
  else app.log.info({ signal }, 'closing')
  await app.close()
  await Promise.all([mailServer.close(), partnerServer.close(), rm(folder, { recursive: true })])
})

const url = await app.listen({ port: Number(PORT), host: HOST })

console.log(`
Sign somebody up; the mail is printed here when it arrives:
  curl -i ${url}/signup -H 'content-type: application/json' -d '{"email":"ada@example.org","name":"Ada"}'

Upload an image; the thumbnails stay in ${folder} until the service stops:
  curl -i '${url}/images?width=160&width=800' -F image=@${image}

A partner that fails twice, and one that fails until it is repaired:
  curl -i -X POST ${url}/partners/flaky/sync
  curl -i -X POST ${url}/partners/broken/sync
  curl -i -X POST ${partnerServer.url}/repair
  curl -s ${url}/jobs/dead/groups -H 'authorization: Bearer ${adminToken}'
  curl -i ${url}/jobs/dead/retry -H 'authorization: Bearer ${adminToken}' \\
    -H 'content-type: application/json' -d '{"task":"sync-partner","canary":true}'
  TOKEN=${adminToken} node examples/replay.js ${url}

How a job is doing (take the path from the Location header), and how all are:
  curl -i ${url}/jobs/<id>/status
  curl -s ${url}/health/jobs
`)
