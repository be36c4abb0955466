/** Tasks as their users see them: what `define` takes and returns, and how calls find the type of a payload. */
import type { FastifyTypeProvider } from 'fastify'
import type { JobContext } from '../job.ts'
import type { JobOptions } from '../job-options.ts'

/** What `define` returns: a name that carries the types of its payload and its result. */
export interface Task<Payload = unknown, Result = unknown> {
  /** Keeps functions, which have a name too, from passing for tasks. */
  readonly kind: 'task'
  readonly name: string
  /** For types alone; never there. */
  readonly types?: { payload: Payload, result: Result }
}

/** The payload of a task. */
export type PayloadOfTask<T> = T extends Task<infer Payload, unknown> ? Payload : never
/** The result of a task. */
export type ResultOfTask<T> = T extends Task<unknown, infer Result> ? Result : never

/** A task's code. What it returns is the job's result. */
export type Handler<Payload, Result> = (payload: Payload, context: JobContext) => Result | Promise<Result>
/** Work handed over as a function. It lives in memory, and is lost with the process. */
export type InlineFunction<Result = unknown> = (context: JobContext) => Result | Promise<Result>

/** Options of `define`: those of its jobs, and what belongs to the task alone. */
export interface TaskOptions<Schema = unknown> extends JobOptions {
  /**
   * Schema of the payload, for the validator compiler of the instance that calls `define`. As with request bodies,
   * that compiler coerces, fills defaults and strips; the job keeps the validated copy. Without it any JSON is taken.
   */
  schema?: Schema
  /**
   * JSON schema of what the handler returns, for readers of the OpenAPI document: it describes `result` in the status.
   * Results are not checked against it. @default none
   */
  resultSchema?: object | undefined
  /** Gives the task a private queue, named after it, with so many attempts alive at once. Not together with `queue`. Without it the task shares its queue. */
  concurrency?: number | undefined
}

/** A task whose code is a file that runs in threads. */
export interface WorkerTaskOptions<Schema = unknown> extends TaskOptions<Schema> {
  /** A `file:` URL or an absolute path. The file's default export is called with the payload and a `ThreadContext`. */
  worker: URL | string
}

/** The payload a schema stands for, by the type provider of the instance. */
export type PayloadOfSchema<Provider extends FastifyTypeProvider, Schema> = (Provider & { schema: Schema })['validator']

/**
 * Merge declarations into this to type calls by name:
 * `declare module 'fastify-background-tasks' { interface BackgroundTaskMap { 'send-email': { to: string } } }`.
 * While it is empty, every name takes any payload. It has no members of its own: it is made to be merged into.
 */
export interface BackgroundTaskMap {}

/** Names that calls may use: those of `BackgroundTaskMap`, or any while it is empty. */
export type TaskName = keyof BackgroundTaskMap extends never ? string : Extract<keyof BackgroundTaskMap, string>
/** The payload of a task by its name, as merged into `BackgroundTaskMap`. */
export type PayloadOfName<Name> = Name extends keyof BackgroundTaskMap ? BackgroundTaskMap[Name] : unknown

/** A payload that may be left out is `null` then. */
export type PayloadArguments<Payload> = undefined extends Payload ? [payload?: Payload, options?: JobOptions]
  : null extends Payload ? [payload?: Payload, options?: JobOptions]
    : [payload: Payload, options?: JobOptions]
