/**
 * A glance at many jobs. BullMQ reads them one by one and whole, payloads and stack traces too, which is too much for what
 * is only counted or looked for: here its two stores are asked for a few fields, for ids, or for how many jobs have which
 * name. Nothing is written.
 */
import type { JobsOptions, PostgresQueueBackend, RedisQueueBackend } from 'bullmq'
import { describe, peek } from '../../describe.ts'
import type { StoreQueue } from './connections.ts'
import { isOfClass } from './reach.ts'

/** Where BullMQ keeps jobs of a queue. */
export type Place = 'waiting' | 'prioritized' | 'delayed' | 'waiting-children' | 'active' | 'completed' | 'failed'

/** What tells which state a delayed job is in. */
export interface Delayed {
  readonly name: string
  readonly opts: JobsOptions
  readonly attemptsStarted: number
  readonly delay: number
  readonly hasFailed: boolean
  /** Epoch ms. */
  readonly due: number
}

/** Which ids are looked for. */
export interface Sought {
  /** Of the task. */
  readonly name: string | undefined
  /** In the order of ids, only those beyond this one. */
  readonly after: string | undefined
  readonly newestFirst: boolean
}

/** Ids in any order, also some that were not sought. */
export interface Ids {
  readonly ids: readonly string[]
  /** Where to go on. Undefined: these were the last. */
  readonly cursor: string | undefined
}

/** Jobs that one call to Redis reads: it does nothing else meanwhile, for a ms. */
const PAGE = 1_000
/** Ids that are told of a place in PostgreSQL. */
export const MOST_IDS = 2_000
/** In Redis a place in the order of the delayed is the ms, times this, and a count. */
const SCORE = 4_096

const IDS = `
local key, first, last, job = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local range = redis.call('TYPE', key).ok == 'list' and 'LRANGE' or 'ZRANGE'`

const SCRIPTS = {
  backgroundNames: `${IDS}
local jobs = {}
for _, id in ipairs(redis.call(range, key, first, last)) do
  local name = redis.call('HGET', job .. id, 'name')
  if name then jobs[name] = (jobs[name] or 0) + 1 end
end
local told = {}
for name, count in pairs(jobs) do
  told[#told + 1] = name
  told[#told + 1] = count
end
return told`,
  backgroundIds: `
local key, cursor, job, name = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local next, ids = '0', {}
if redis.call('TYPE', key).ok == 'list' then
  ids = redis.call('LRANGE', key, cursor, cursor + ${PAGE - 1})
  if #ids == ${PAGE} then next = tostring(cursor + ${PAGE}) end
else
  local found = redis.call('ZSCAN', key, cursor, 'COUNT', ${PAGE})
  next = found[1]
  for i = 1, #found[2], 2 do ids[#ids + 1] = found[2][i] end
end
if name == '' then return { next, ids } end
local named = {}
for _, id in ipairs(ids) do
  if redis.call('HGET', job .. id, 'name') == name then named[#named + 1] = id end
end
return { next, named }`,
  backgroundDelayed: `${IDS}
local told = {}
local found = redis.call(range, key, first, last, 'WITHSCORES')
for i = 1, #found, 2 do
  local name, opts, started, delay, reason = unpack(redis.call('HMGET', job .. found[i], 'name', 'opts', 'ats', 'delay', 'failedReason'))
  if name then told[#told + 1] = { name, opts, started or '0', delay or '0', (reason or '') == '' and '0' or '1', found[i + 1] } end
end
return told`
}

const NAMES = 'SELECT name, count(*)::integer AS jobs'
const DELAYED = `SELECT name, opts, attempts_started, delay_ms, COALESCE(failed_reason, '') <> '' AS has_failed, process_at_ms`

/** How many jobs of each name there are among so many of a place. Empty where the store keeps them in another way. */
export async function namesIn (queue: StoreQueue, place: Place, first: number, count: number): Promise<Map<string, number>> {
  const jobs = new Map<string, number>()
  const add = (name: string, n: number): void => { jobs.set(name, (jobs.get(name) ?? 0) + n) }
  await known(async () => {
    const backend = backendOf(queue)
    if ('client' in backend) {
      for (let from = first; from < first + count; from += PAGE) {
        const told = await runScript(backend, 'backgroundNames', place, from, Math.min(from + PAGE, first + count) - 1, backend.toKey('')) as Array<string | number>
        for (let i = 0; i < told.length; i += 2) add(told[i] as string, told[i + 1] as number)
        if (told.length === 0) break
      }
    } else for (const row of await select(backend, queue.name, NAMES, 'GROUP BY name', place, first, first + count - 1)) add(row['name'] as string, row['jobs'] as number)
  })
  return jobs
}

/** So many delayed jobs, the next ones first. None where the store keeps them in another way. */
export async function nextDelayed (queue: StoreQueue, count: number): Promise<Delayed[]> {
  return await known(async () => {
    const backend = backendOf(queue)
    if (!('client' in backend)) return (await select(backend, queue.name, DELAYED, 'ORDER BY process_at_ms', 'delayed', 0, count - 1)).map(toDelayed)
    const told = await runScript(backend, 'backgroundDelayed', 'delayed', 0, count - 1, backend.toKey('')) as Array<[string, string, string, string, string, string]>
    return told.map(([name, opts, started, delay, failed, score]) => (
      { name, opts: JSON.parse(opts), attemptsStarted: Number(started), delay: Number(delay), hasFailed: failed === '1', due: Math.floor(Number(score) / SCORE) }
    ))
  }) ?? []
}

/**
 * Ids of a place: of jobs that stay there from the first call to the last, all that are sought, some perhaps twice. In Redis
 * they come a page at a time; PostgreSQL answers at once, with the first `MOST_IDS` in their order.
 */
export async function idsIn (queue: StoreQueue, place: Place, { name, after, newestFirst }: Sought, from: string | undefined): Promise<Ids> {
  const found = await known(async (): Promise<Ids> => {
    const backend = backendOf(queue)
    if ('client' in backend) {
      const [cursor, ids] = await runScript(backend, 'backgroundIds', place, from ?? '0', backend.toKey(''), name ?? '') as [string, string[]]
      return { ids, cursor: cursor === '0' ? undefined : cursor }
    }
    const [beyond, order] = newestFirst ? ['<', 'DESC'] : ['>', 'ASC']
    const rest = `WHERE ($5::text IS NULL OR place.id COLLATE "C" ${beyond} $5) AND ($6::text IS NULL OR job.name = $6) ORDER BY place.id COLLATE "C" ${order} LIMIT ${MOST_IDS}`
    const rows = await select(backend, queue.name, 'SELECT place.id', rest, place, 0, -1, after, name)
    return { ids: rows.map(({ id }) => id as string), cursor: undefined }
  })
  return found ?? { ids: (await queue.getBackend().getRanges([place], 0, -1, true)).flat(), cursor: undefined }
}

async function runScript (backend: RedisQueueBackend, name: keyof typeof SCRIPTS, place: Place, ...args: Array<string | number>): Promise<unknown> {
  const client = await backend.client
  client.defineCommand(name, { numberOfKeys: 1, lua: SCRIPTS[name], readOnly: true })
  return client.runCommand(name, [backend.toKey(place === 'waiting' ? 'wait' : place), ...args])
}

/** `last`: −1 for all. */
async function select ({ connection }: PostgresQueueBackend, queue: string, fields: string, rest: string, place: Place, first: number, last: number, ...more: unknown[]): Promise<Array<Record<string, unknown>>> {
  const schema = `"${connection.schema.replaceAll('"', '""')}"`
  const text = `${fields} FROM ${schema}.get_range($1, $2, $3, $4, true) AS place (id) JOIN ${schema}.job ON job.queue = $1 AND job.id = place.id ${rest}`
  return (await connection.pool.query<Record<string, unknown>>(text, [queue, place, first, last, ...more])).rows
}

function toDelayed (row: Record<string, unknown>): Delayed {
  return {
    name: row['name'] as string,
    opts: row['opts'] as JobsOptions,
    attemptsStarted: row['attempts_started'] as number,
    delay: Number(row['delay_ms']),
    hasFailed: row['has_failed'] as boolean,
    due: Number(row['process_at_ms'])
  }
}

function backendOf (queue: StoreQueue): RedisQueueBackend | PostgresQueueBackend {
  return queue.getBackend() as RedisQueueBackend | PostgresQueueBackend
}

/** Undefined when the store answers that it has no such tables or keys: it was set up by a BullMQ that keeps jobs otherwise. */
async function known<T> (ask: () => Promise<T>): Promise<T | undefined> {
  try {
    return await ask()
  } catch (error) {
    if (/^(ERR|WRONGTYPE|NOPERM)\b/.test(describe(error).message) || isOfClass('42', peek(error, 'code'))) return undefined
    throw error
  }
}
