// Retries dead letters of a running service, one kind of error after the other: shows the groups, counts what matches,
// sends one job ahead, and lets the others follow at a rate when it has come through.
//
//   node examples/replay.js URL [--task NAME] [--fingerprint F] [--since ISO] [--rate N] [--patch JSON] [--yes]
//
// TOKEN in the environment is sent as a bearer token. Without --yes nothing is retried. Exits 1 if the canary did not
// complete.

import { parseArgs } from 'node:util'

const text = { type: 'string' }
const { values, positionals: [base = 'http://127.0.0.1:3000'] } = parseArgs({
  allowPositionals: true,
  options: { task: text, fingerprint: text, since: text, rate: text, patch: text, yes: { type: 'boolean' } }
})
const { task, fingerprint, since, rate, patch, yes } = values
const filter = { task, fingerprint, since }

async function call (path, body) {
  const response = await fetch(new URL(path, base), {
    method: body === undefined ? 'GET' : 'POST',
    headers: {
      ...(process.env.TOKEN && { authorization: `Bearer ${process.env.TOKEN}` }),
      ...(body !== undefined && { 'content-type': 'application/json' })
    },
    body: body && JSON.stringify(body)
  })
  const answer = await response.json()
  if (response.ok) return answer
  console.error(`${path}: ${response.status} ${answer.code ?? ''} ${answer.message}`)
  process.exit(1)
}

const query = new URLSearchParams(Object.entries(filter).filter(([, value]) => value !== undefined))
const { groups, matched } = await call(`/jobs/dead/groups?${query.toString()}`)
for (const { fingerprint: kind, count, tasks, error, lastFailedAt } of groups) {
  console.log(`${kind}  ${String(count).padStart(6)}  ${lastFailedAt}  ${tasks.join(', ')}: ${error?.name}: ${error?.message}`)
}

const options = { ...filter, ...(rate && { ratePerSecond: Number(rate) }), ...(patch && { patch: JSON.parse(patch) }) }
await call('/jobs/dead/retry', { ...options, dryRun: true })
console.log(`${matched} dead letters match${patch ? ', and the patched payloads fit' : ''}`)
if (matched === 0 || !yes) process.exit()

const { done, canary } = await call('/jobs/dead/retry', { ...options, canary: true })
console.log(`canary ${canary?.jobId}: ${canary?.state}`)
console.log(`${done} of ${matched} retried`)
if (canary?.state !== 'completed') process.exit(1)
