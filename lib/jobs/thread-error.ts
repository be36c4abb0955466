/**
 * What was thrown in a thread, as data: a structured clone loses codes and brands, and fails for some errors. What
 * policies look at crosses: name, message, code, causes, the error's own plain properties, and what it asks for.
 */
import { describe, peek, type ErrorFacts } from '../describe.ts'
import { asRetryLater, isUnrecoverable, RetryLaterError, UnrecoverableError } from '../errors.ts'
import { toldToRetryAfter } from './retry.ts'

export interface CrossingError {
  readonly facts: ErrorFacts
  readonly properties: Record<string, unknown>
  readonly unrecoverable: boolean
  readonly later: { readonly delay: number, readonly countAttempt: boolean } | undefined
}

const MOST_PROPERTIES = 50
const LONGEST_PROPERTY = 4_096

export function toData (thrown: unknown): CrossingError {
  const retryAfter = toldToRetryAfter(thrown)
  const properties = plainProperties(thrown)
  if (isPlain(retryAfter)) properties['retryAfter'] = retryAfter
  return { facts: describe(thrown), properties, unrecoverable: isUnrecoverable(thrown), later: asRetryLater(thrown) }
}

export function toError ({ facts, properties, unrecoverable, later }: CrossingError): Error {
  const { message } = facts
  const error = unrecoverable ? new UnrecoverableError(message) : later === undefined ? new Error(message) : new RetryLaterError({ ...later, message })
  return dress(Object.assign(error, properties), facts)
}

function dress (error: Error, { name, message, code, stack, cause }: ErrorFacts): Error {
  Object.assign(error, { name, message }, code !== null && { code })
  // A value that was no error had no stack, and gets none here.
  Object.defineProperty(error, 'stack', { value: stack, writable: true, configurable: true })
  if (cause !== undefined) Object.defineProperty(error, 'cause', { value: dress(new Error(), cause), writable: true, configurable: true })
  return error
}

function plainProperties (thrown: unknown): Record<string, unknown> {
  if (typeof thrown !== 'object' || thrown === null) return {}
  try {
    const plain = Object.keys(thrown).map((key) => [key, peek(thrown, key)] as const).filter(([, value]) => isPlain(value))
    return Object.fromEntries(plain.slice(0, MOST_PROPERTIES))
  } catch {
    return {} // a proxy
  }
}

function isPlain (value: unknown): boolean {
  return typeof value === 'number' || typeof value === 'boolean' || (typeof value === 'string' && value.length <= LONGEST_PROPERTY)
}
