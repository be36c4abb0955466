/** What our routes have in common: where they stand, what checks and describes them, what the application adds. */
import AjvCompiler from '@fastify/ajv-compiler'
import type { FastifyInstance, FastifyReply, FastifyRequest, FastifySchema, FastifySchemaCompiler, RouteGenericInterface } from 'fastify'
import type { RouteSettings } from '../route-options.ts'
import { errorSchema } from './schemas.ts'

export interface OwnRoute<Route extends RouteGenericInterface> {
  readonly method: 'GET' | 'POST' | 'DELETE'
  /** Below the prefix given to `register`. */
  readonly path: string
  readonly summary: string
  /** `response`: without the errors of every route. */
  readonly schema: FastifySchema & { response: Record<number, object> }
  /** Before the application's own. */
  readonly onRequest?: (request: FastifyRequest, reply: FastifyReply) => Promise<void>
  /** @default as the application says */
  readonly head?: false
  readonly handler: (request: FastifyRequest<Route>, reply: FastifyReply) => Promise<unknown>
}

/**
 * Adds a route to the application's own instance, so that its hooks and its error handler are the route's, whenever they
 * are set. What comes in is checked here and what goes out is written here, whatever compilers the application has.
 */
export function addRoute<Route extends RouteGenericInterface> (app: FastifyInstance, routes: RouteSettings, own: OwnRoute<Route>): void {
  const { onRequest = [], ...passed } = routes.passed
  const { params, querystring, body, response } = own.schema
  const refusals = params ?? querystring ?? body ? { 400: errorSchema } : {}
  app.route<Route>({
    errorHandler: laterErrorHandler(app),
    ...passed,
    ...(own.head === false ? { exposeHeadRoute: false } : undefined),
    method: own.method,
    url: join(routes.prefix, own.path),
    onRequest: [...own.onRequest === undefined ? [] : [own.onRequest], ...Array.isArray(onRequest) ? onRequest : [onRequest]],
    validatorCompiler: (part) => part.httpPart === 'body' ? compileBody(part) : compileText(part),
    serializerCompiler: () => write,
    schema: describeRoute(own.summary, routes, { ...own.schema, response: { ...refusals, ...response } }),
    handler: own.handler as never
  })
}

/** Fastify hands over an error, made for its own serializer, where no error handler of the application answers. */
function write (value: unknown): string {
  if (!(value instanceof Error)) return JSON.stringify(value)
  const { statusCode, code, error, message } = value as Error & { statusCode?: number, code?: string, error?: string }
  return JSON.stringify({ statusCode, code, error, message })
}

/** As Fastify joins a prefix and a path. */
export function join (prefix: string, path: string): string {
  return prefix.endsWith('/') && path.startsWith('/') ? prefix + path.slice(1) : prefix + path
}

/** What is not known is refused, not removed: a misspelt filter would mean everything. */
const strictly = { removeAdditional: false, useDefaults: true, allErrors: false } as const
/** For all applications of the process, and our schemas alone. */
const compilers = AjvCompiler()
const compileBody = compilers({}, { customOptions: { ...strictly, coerceTypes: false } }) as FastifySchemaCompiler<unknown>
/** Where all is text. */
const compileText = compilers({}, { customOptions: { ...strictly, coerceTypes: 'array' } }) as FastifySchemaCompiler<unknown>

/** `summary` and `tags` are no part of Fastify's own type: @fastify/swagger adds them. */
function describeRoute (summary: string, routes: RouteSettings, own: FastifySchema): FastifySchema {
  const schema = { summary, tags: ['background jobs'], ...routes.schema, ...own }
  return schema
}

/** A route keeps the error handler of the time it was added. Ours come first in most applications, and take a later one too. */
function laterErrorHandler (app: FastifyInstance): FastifyInstance['errorHandler'] {
  const first = app.errorHandler
  return (error, request, reply) => {
    // What is thrown may be anything; sent, only an error passes for one.
    if (app.errorHandler !== first || !(error instanceof Error)) return app.errorHandler(error, request, reply)
    reply.send(error) // on to where it would have gone
    return undefined
  }
}
