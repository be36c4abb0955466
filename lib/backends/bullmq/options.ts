/** Options of `bullmq()`, and which of BullMQ's two stores a connection leads to. */
import type { ConnectionOptions } from 'bullmq'
import * as check from '../../check.ts'
import { peek } from '../../describe.ts'
import { errors } from '../../errors.ts'
import type { Codec } from './codec.ts'

/** Options of `bullmq`. */
export interface BullmqOptions {
  /**
   * `redis://…`, `rediss://…` or `postgres://…`, the options of the client, or a made client: what BullMQ takes as its
   * `connection`. Passed on untouched, TLS and credentials included; never logged.
   */
  connection: string | object
  /** For options of a client that do not say it themselves. @default 'postgres' for a `pg.Pool` or a `connectionString`, else 'redis' */
  store?: 'redis' | 'postgres' | undefined
  /** Of the keys in Redis. PostgreSQL has `schema` in the connection's options instead. @default 'bull' */
  prefix?: string | undefined
  /** Ms that one call to the store may take before it is refused; 1 to 60 000. @default 5000 */
  callTimeout?: number | undefined
  /** Ms after which the job of a worker that died or lost its connection may start again; renewed while it lives. At least 1 000. @default 30000 */
  lockDuration?: number | undefined
  /** How often a job may be taken from dead workers before it fails as `stalled`; 0 to 1 000. @default 1 */
  maxStalledCount?: number | undefined
  /** For payloads, results and progress. @default JSON as it is */
  codec?: Codec | undefined
}

export interface BullmqSettings {
  readonly store: 'redis' | 'postgres'
  /** As BullMQ wants it, with our defaults under the user's. */
  readonly connection: ConnectionOptions
  /** A made client: somebody else closes it. */
  readonly shared: boolean
  readonly prefix: string
  readonly callTimeout: number
  readonly lockDuration: number
  readonly maxStalledCount: number
  readonly codec: Codec | undefined
}

/** Ms that a connection to PostgreSQL may take: of a busy one more than a call to it. */
const CONNECT = 5_000
/** Ms between two attempts to connect. */
export const RECONNECT = 1_000

const CHECKS: check.Checks = {
  connection: (value) => (typeof value === 'string' ? /^(rediss?|postgres(ql)?):\/\//.test(value) : typeof value === 'object' && value !== null)
    ? undefined : 'a URL that starts with redis://, rediss:// or postgres://, the options of a client, or a client',
  store: check.oneOf('redis', 'postgres'),
  prefix: check.name,
  callTimeout: check.integer(1, 60_000),
  lockDuration: check.integer(1_000, 86_400_000),
  maxStalledCount: check.integer(0, 1_000),
  codec: (value) => typeof peek(value, 'encode') === 'function' && typeof peek(value, 'decode') === 'function' ? undefined : '{ encode, decode }, two functions'
}

/** @throws FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION; their texts never hold the connection */
export function resolveBullmqOptions (options: BullmqOptions): BullmqSettings {
  // Looked at first, so that no text about it quotes a password.
  if (CHECKS.connection?.(peek(options, 'connection')) !== undefined) {
    throw new errors.BadOption('bullmq(options).connection', CHECKS.connection(undefined) as string, `a value of type ${typeof peek(options, 'connection')} that is none`)
  }
  const given = check.options<BullmqOptions>('bullmq(options)', CHECKS, options)
  const store = given.store ?? storeOf(given.connection)
  const callTimeout = given.callTimeout ?? 5_000
  return {
    store,
    connection: connectionOf(given.connection, store, callTimeout),
    shared: isClient(given.connection),
    prefix: given.prefix ?? 'bull',
    callTimeout,
    lockDuration: given.lockDuration ?? 30_000,
    maxStalledCount: given.maxStalledCount ?? 1,
    codec: given.codec
  }
}

function storeOf (connection: string | object): 'redis' | 'postgres' {
  if (typeof connection === 'string') return connection.startsWith('redis') ? 'redis' : 'postgres'
  const isPool = typeof peek(connection, 'query') === 'function' && typeof peek(connection, 'connect') === 'function'
  return isPool || peek(connection, 'connectionString') !== undefined ? 'postgres' : 'redis'
}

function isClient (connection: string | object): boolean {
  return typeof peek(connection, 'connect') === 'function'
}

function connectionOf (connection: string | object, store: 'redis' | 'postgres', callTimeout: number): ConnectionOptions {
  if (isClient(connection)) return connection as ConnectionOptions
  // BullMQ would wait longer and longer, up to 20 s after the store is back.
  if (store === 'redis') return { retryStrategy: () => RECONNECT, ...(typeof connection === 'string' ? { url: connection } : connection) }
  const given = typeof connection === 'string' ? { connectionString: connection } : connection as Record<string, unknown>
  return {
    // A server that is there and does not answer must not hold a connection of the pool for ever.
    connectionTimeoutMillis: Math.max(callTimeout, CONNECT),
    query_timeout: 2 * callTimeout,
    keepAlive: true,
    ...('migrate' in given || 'skipMigrations' in given ? undefined : { migrate: true }),
    ...given
  }
}
