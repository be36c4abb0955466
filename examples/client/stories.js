// What the demo's client lives through, each with the checks that make it a test.

import sharp from 'sharp'
import { sampleImage } from '../local/sample-image.js'
import { workTime } from './http.js'

export async function signupStory ({ client, mailServer, timeline: { part, check } }) {
  part('A signup: the response does not wait for the mail')
  const { code, body, took } = await client.postJson('/signup', { email: 'ada@example.org', name: 'Ada' })
  check(code === 202, 'accepted', code)
  const status = await client.follow(body.statusUrl)
  check(status.state === 'completed', 'the job completed', status)
  check(took < workTime(status), `response sooner than the work: ${took} ms, ${workTime(status)} ms`)
  const { mails } = mailServer
  check(mails.map(({ to }) => to).join() === 'ada@example.org', 'one mail arrived, for ada@example.org', mails)
  const { body: stats } = await client.get('/stats')
  check(stats.signupsPerDomain['example.org'] === 1, 'the inline function counted the signup', stats)
}

export async function imageStory ({ client, timeline: { part, check } }) {
  const image = await sampleImage({ width: 2000, height: 1500 })
  part(`An image of ${image.length >> 10} KiB: two thumbnails after the response`)
  const form = new FormData()
  form.append('image', new Blob([image], { type: 'image/jpeg' }), 'sample.jpg')
  const { code, body, took } = await client.post('/images?width=160&width=800', { body: form })
  check(code === 202, 'accepted', code)
  const status = await client.follow(body.statusUrl)
  check(status.state === 'completed', 'the job completed', status)
  check(took < workTime(status), `response sooner than the work: ${took} ms, ${workTime(status)} ms`)
  const sizes = await Promise.all(status.result.thumbnails.map(async ({ path }) => {
    const { width, height } = await sharp(path).metadata()
    return `${width}x${height}`
  }))
  check(sizes.join() === '160x120,800x600', 'the thumbnails on disk are 160x120 and 800x600', sizes)
}

export async function partnerStory ({ client, partnerCalls, retryDelay, timeline: { part, check } }) {
  part('A partner that fails twice: retried with growing pauses')
  const { code, body } = await client.post('/partners/flaky/sync')
  check(code === 202, 'accepted', code)
  const status = await client.follow(body.statusUrl)
  check(status.state === 'completed' && status.attemptsMade === 3, 'completed with the third attempt', status)
  const times = partnerCalls.filter(({ partner }) => partner === 'flaky').map(({ at }) => at)
  const pauses = times.slice(1).map((at, index) => Math.round(at - times[index]))
  // Jitter draws each pause from half of its step to the whole: at least 0.5 and 1 times the first step.
  const grew = pauses.length === 2 && pauses[0] >= retryDelay / 2 - 2 && pauses[1] >= retryDelay - 2
  check(grew, `the pauses grow by the backoff: ${pauses.join(', ')} ms`)
}

export async function replayStory ({ client, partnerServer, adminToken, timeline: { part, check, line } }) {
  part('A partner that never answers: a dead letter, replayed after the repair')
  const { body } = await client.post('/partners/broken/sync')
  const dead = await client.follow(body.statusUrl)
  const exhausted = dead.state === 'failed' && dead.failure === 'exhausted' && dead.attemptsMade === 3
  check(exhausted, 'failed after 3 attempts', dead)

  const replay = (options, token = adminToken) =>
    client.postJson('/jobs/dead/retry', { task: 'sync-partner', ...options }, { authorization: `Bearer ${token}` })
  check((await replay({}, 'wrong')).code === 401, 'the admin routes want their token')
  const { body: kept } = await replay({ dryRun: true })
  check(kept.matched === 1, 'one dead letter is kept', kept)

  await fetch(`${partnerServer.url}/repair`, { method: 'POST' })
  line('partner', 'broken is repaired')
  const { body: replayed } = await replay({})
  check(replayed.done === 1, 'one dead letter is on its way again', replayed)
  const status = await client.follow(body.statusUrl)
  check(status.state === 'completed' && status.result.records === 42, 'the same job completed', status)
  const { body: left } = await replay({ dryRun: true })
  check(left.matched === 0, 'no dead letter is left', left)
}
