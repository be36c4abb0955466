// npm run demo: the whole of it in one run, over real sockets: a mail server, two partners, the service and a client.
// Prints a timeline; exits 1 with the reason if one of its checks does not hold. Takes a few seconds.
//
// The service logs to a file and leaves the thumbnails next to it; the folder is printed at the end.

import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { createClient } from './client/http.js'
import { imageStory, partnerStory, replayStory, signupStory } from './client/stories.js'
import { createTimeline } from './client/timeline.js'
import { startMailServer } from './local/mail-server.js'
import { startPartnerServer } from './local/partner-server.js'
import { buildApp } from './service/app.js'

const adminToken = 'demo-token'
const retryDelay = 200

// Unref'd: it can only fire when something else keeps the process alive.
setTimeout(() => {
  console.error('\nThe demo did not come to its end in 30 seconds.')
  process.exit(1)
}, 30_000).unref()

const timeline = createTimeline()
const folder = await mkdtemp(join(tmpdir(), 'background-tasks-'))
const mailServer = await startMailServer({
  delay: 400,
  onMail: ({ to, subject }) => timeline.line('smtp', `mail for ${to}: ${subject}`)
})
const partnerCalls = []
const partnerServer = await startPartnerServer({
  onCall: ({ partner, status }) => {
    partnerCalls.push({ partner, at: performance.now() })
    timeline.line('partner', `${partner} answers ${status}`)
  }
})
const app = await buildApp({
  smtp: { host: '127.0.0.1', port: mailServer.port },
  partners: partnerServer.partners,
  folder,
  adminToken,
  retryDelay,
  logger: { level: 'info', file: join(folder, 'service.log') }
})

try {
  const base = await app.listen({ port: 0, host: '127.0.0.1' })
  const client = createClient(base, timeline)
  const demo = { client, timeline, mailServer, partnerServer, partnerCalls, adminToken, retryDelay }

  await signupStory(demo)
  await imageStory(demo)
  await partnerStory(demo)
  await replayStory(demo)
  await showHealth(demo)
  await closeWithWorkLeft(demo)
  console.log(`\nAll ${timeline.checks} checks hold. Thumbnails and the service's log are in ${folder}`)
} catch (error) {
  const cause = error.cause ? ` (${error.cause.message})` : ''
  console.error(`\nThe demo failed: ${error.message}${cause}\nThe service's log is in ${folder}`)
  process.exitCode = 1
} finally {
  await app.close()
  await Promise.all([mailServer.close(), partnerServer.close()])
}

async function showHealth ({ client, timeline: { part, check, table } }) {
  part('GET /health/jobs')
  const { body: health } = await client.get('/health/jobs')
  const columns = ['waiting', 'delayed', 'active', 'completed', 'failed', 'concurrency']
  table([
    ['queue', ...columns],
    ...Object.entries(health.queues).map(([name, counts]) => [name, ...columns.map((column) => counts[column])])
  ])
  const { failedAttempts, deadLettered } = health.totals
  check(health.status === 'ok', 'status is ok', health.status)
  check(failedAttempts === 5 && deadLettered === 1, '5 failed attempts and 1 dead letter since start', health.totals)
}

async function closeWithWorkLeft ({ client, timeline: { part, line, check } }) {
  part('Closing with a mail still to send')
  const { code } = await client.postJson('/signup', { email: 'grace@example.org', name: 'Grace' })
  check(code === 202, 'accepted', code)
  line('service', 'close')
  await app.close()
  line('service', 'closed')
  const { mails } = mailServer
  check(mails.at(-1)?.to === 'grace@example.org', 'the mail was sent before the close was done', mails)
}
