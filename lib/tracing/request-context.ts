/** Values of @fastify/request-context for the handlers of jobs, on every backend: so they are copied as JSON. */
import type { AsyncLocalStorage } from 'node:async_hooks'
import type { FastifyPluginAsync } from 'fastify'
import fp from 'fastify-plugin'
import * as check from '../check.ts'
import { errors } from '../errors.ts'
import { copyAsJson, type Json } from '../json.ts'
import { importPeer } from '../peer.ts'

/** Options of the propagator of @fastify/request-context. */
export interface RequestContextOptions {
  /** Which values go along: what a job keeps in its store is chosen, not everything that a request knows. */
  keys: readonly string[]
}

/** The part that is used. */
interface RequestContextPackage {
  readonly asyncLocalStorage: AsyncLocalStorage<Record<string, unknown>>
}

const ENTRY = 'request-context'
const CHECKS: check.Checks = {
  keys: (value) => Array.isArray(value) && value.length > 0 && value.every((key) => typeof key === 'string') ? undefined : 'names of values, at least one'
}

const plugin: FastifyPluginAsync<RequestContextOptions> = async (app, options) => {
  const { keys } = check.options<RequestContextOptions>('requestContext options', CHECKS, options)
  if (keys === undefined) throw new errors.BadOption('requestContext options.keys', 'names of values, at least one', 'nothing')
  const { asyncLocalStorage: storage } = await importPeer<RequestContextPackage>('requestContext', '@fastify/request-context',
    async () => import('@fastify/request-context') as unknown as RequestContextPackage)

  app.background.propagate({
    inject (_job, carrier) {
      const store = storage.getStore()
      const values: Record<string, Json> = {}
      for (const key of keys) {
        const copied = copyAsJson(store?.[key])
        if (copied !== undefined) values[key] = copied.value
      }
      if (Object.keys(values).length > 0) carrier[ENTRY] = JSON.stringify(values)
    },
    extract ({ carrier }) {
      const text = carrier[ENTRY]
      if (text === undefined) return undefined
      const store = JSON.parse(text) as Record<string, unknown> // each attempt has its own
      return { run: (work) => storage.run(store, work) }
    }
  })
}

/**
 * To be registered after `fastify-background-tasks`.
 * @throws FST_BG_PEER_MISSING, FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION
 */
export const requestContext: FastifyPluginAsync<RequestContextOptions> = fp(plugin, {
  name: 'fastify-background-tasks-request-context',
  fastify: '5.x',
  dependencies: ['fastify-background-tasks']
})
