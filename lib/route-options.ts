/** Options of the routes, checked and resolved. */
import type { FastifyContextConfig, LogLevel, RegisterOptions, RouteShorthandOptions } from 'fastify'
import * as check from './check.ts'
import { errors } from './errors.ts'

/** Options of Fastify routes that reach ours untouched. */
type PassedOn = 'onRequest' | 'preParsing' | 'preValidation' | 'preHandler' | 'preSerialization' | 'onSend' | 'onResponse' |
  'onTimeout' | 'onError' | 'onRequestAbort' | 'constraints' | 'errorHandler' | 'exposeHeadRoute'

/** Paths of the routes, and route options of Fastify that are passed on. */
export interface RoutesOptions extends Pick<RouteShorthandOptions, PassedOn> {
  /** @default '/health/jobs' */
  health?: string | false | undefined
  /** Must contain `:id`. @default '/jobs/:id/status' */
  status?: string | false | undefined
  /** Live states as server-sent events. `true`: at '/jobs/:id/events'. @default false */
  events?: string | boolean | undefined
  /** Listing, cancelling, retrying, pausing. Needs `authorize`. @default false */
  admin?: boolean | undefined
  /** Fastify's `config` of our routes. @default none */
  config?: FastifyContextConfig & Record<string, unknown>
  /** `tags`, `security`, `hide` and the like; params and responses are ours. @default none */
  schema?: Record<string, unknown> | undefined
}

export interface RouteSettings {
  readonly prefix: string
  readonly health: string | false
  readonly status: string | false
  readonly events: string | false
  readonly admin: boolean
  readonly schema: Record<string, unknown>
  readonly passed: Pick<RouteShorthandOptions, PassedOn | 'config' | 'logLevel' | 'logSerializers'>
}

/** What the plugin was given. */
interface Given {
  readonly prefix?: string
  readonly routes?: RoutesOptions | false | undefined
  readonly authorize?: unknown
  readonly logLevel?: LogLevel
  readonly logSerializers?: NonNullable<RegisterOptions['logSerializers']>
}

const withId: check.Check = (value) => {
  const parameters = String(value).split('/').filter((part) => /[:*]/.test(part))
  return check.path(value) ?? (value === false || parameters.join() === ':id' ? undefined : 'a path with the part ":id", and no other parameter')
}
const hooks = ['onRequest', 'preParsing', 'preValidation', 'preHandler', 'preSerialization', 'onSend', 'onResponse',
  'onTimeout', 'onError', 'onRequestAbort'] as const
const aHook = check.either(check.func, (value) => Array.isArray(value) && Array.from(value).every((hook) => typeof hook === 'function') ? undefined : 'an array of functions')
const ROUTE_CHECKS: check.Checks = {
  health: check.path,
  status: withId,
  events: check.either(check.oneOf(true), withId),
  admin: check.boolean,
  schema: check.object,
  config: check.object,
  constraints: check.object,
  errorHandler: check.func,
  exposeHeadRoute: check.boolean,
  ...Object.fromEntries(hooks.map((hook) => [hook, aHook]))
}

/** @throws FST_BG_AUTHORIZE_REQUIRED, FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION */
export function resolveRoutes ({ prefix = '', routes, authorize, logLevel, logSerializers }: Given): RouteSettings {
  if (routes === false) return { prefix, health: false, status: false, events: false, admin: false, schema: {}, passed: {} }
  const { health = '/health/jobs', status = '/jobs/:id/status', events = false, admin = false, schema = {}, ...passed } =
    check.options<RoutesOptions>('options.routes', ROUTE_CHECKS, routes ?? {})
  if (admin && authorize === undefined) throw new errors.AuthorizeRequired('options.routes.admin')
  return { prefix, health, status, events: events === true ? '/jobs/:id/events' : events, admin, schema, passed: { ...passed, ...(logLevel && { logLevel }), ...(logSerializers && { logSerializers }) } }
}
