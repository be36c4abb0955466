// A client of the service: sends requests and times their responses, then follows a job by its status URL.

import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'

/** The service asks for whole seconds between two looks; the demo has less patience. */
const LONGEST_PAUSE = 40

export function createClient (base, { line, check }) {
  async function get (path) {
    const response = await fetch(new URL(path, base))
    return { code: response.status, body: await response.json(), retryAfter: response.headers.get('retry-after') }
  }

  async function post (path, init = {}) {
    line('client', `POST ${path} ${typeof init.body === 'string' ? init.body : ''}`.trimEnd())
    const sentAt = performance.now()
    const response = await fetch(new URL(path, base), { method: 'POST', ...init })
    const body = await response.json()
    const took = Math.round(performance.now() - sentAt)
    line('client', `${response.status} after ${took} ms${body.jobId ? `, job ${body.jobId}` : ''}`)
    return { code: response.status, body, took }
  }

  function postJson (path, payload, headers = {}) {
    return post(path, { body: JSON.stringify(payload), headers: { 'content-type': 'application/json', ...headers } })
  }

  /** Asks for the status until it is final, which a response without Retry-After says. */
  async function follow (statusUrl) {
    for (let shown; ;) {
      const { code, body: status, retryAfter } = await get(statusUrl)
      if (code !== 200) check(false, `GET ${statusUrl} answers 200`, code)
      const seen = describeStatus(status)
      if (seen !== shown) line('status', seen)
      shown = seen
      if (retryAfter === null) return status
      await sleep(Math.min(Number(retryAfter) * 1_000, LONGEST_PAUSE))
    }
  }

  return { get, post, postJson, follow }
}

/** How long the work itself took: the last attempt, from its start to its end. */
export const workTime = ({ startedAt, finishedAt }) => Date.parse(finishedAt) - Date.parse(startedAt)

function describeStatus ({ state, delayReason, attemptsMade, attempts, progress, failure, error }) {
  return [
    `${state}${delayReason ? ` (${delayReason})` : ''}${failure ? ` (${failure}: ${error.code ?? error.name})` : ''}`,
    attemptsMade > 0 && `attempt ${attemptsMade} of ${attempts}`,
    progress && `${progress.done} of ${progress.of} done`
  ].filter(Boolean).join(', ')
}
