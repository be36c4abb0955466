/** The logger we write to, and what stands in each line. */
import type { Attempt, NewJob } from './job.ts'

/** The part of pino that is used. */
export interface Logger {
  info (fields: object, text: string): void
  warn (fields: object, text: string): void
  error (fields: object, text: string): void
  isLevelEnabled?: (level: string) => boolean
}

export type Job = Pick<NewJob, 'id' | 'name' | 'queue' | 'requestId'>

/** What is told of must go on when it cannot be told: a logger's stream or serializer may throw. */
export function harmless (log: Logger): Logger {
  const quietly = (level: 'info' | 'warn' | 'error') => (fields: object, text: string): void => {
    try {
      log[level](fields, text)
    } catch { /* there is no other place to say it */ }
  }
  return {
    info: quietly('info'),
    warn: quietly('warn'),
    error: quietly('error'),
    isLevelEnabled: (level) => log.isLevelEnabled?.(level) ?? true
  }
}

export function jobFields (job: Job): Record<string, unknown> {
  return { jobId: job.id, task: job.name, queue: job.queue, reqId: job.requestId ?? undefined }
}

export function attemptFields (attempt: Attempt, durationMs: number): Record<string, unknown> {
  return { ...jobFields(attempt.job), attempt: attempt.number, waitMs: Math.round(attempt.waited), durationMs: Math.round(durationMs) }
}
