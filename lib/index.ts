/** The door. */
export { backgroundTasks, backgroundTasks as default } from './plugin.ts'
export { memory, type MemoryOptions } from './backends/memory/index.ts'
export {
  errors, JobAbortedError, RetryLaterError, UnrecoverableError,
  type AbortKind, type RetryLaterOptions
} from './errors.ts'
export type { Background, BulkJob } from './background.ts'
export type {
  Awaitable, Backend, CancelAnswer, Capabilities, Change, Incident, JobQuery, Load, QueueCounts, Retention, Sink
} from './backend.ts'
export type { Clock, Timer } from './clock.ts'
export type { ErrorFacts } from './describe.ts'
export type { AcceptedBody, AcceptJob, StageJob } from './http/reply.ts'
export type { StatusBody } from './http/views.ts'
export type {
  Attempt, Backoff, BackoffFunction, CancelReason, DelayReason, FailedAttempt, Failure, FinalState, InlineWork, JobContext,
  JobFacts, JobRecord, JobState, NewJob, OmittedResult, Outcome, Policy, RetryIf
} from './job.ts'
export type { JobOptions, ResponseOutcome, When } from './job-options.ts'
export type { FinishedOptions, QueueStatus } from './jobs/control.ts'
export type {
  DeadLetterAnswer, DeadLetterFilter, DeadLetterPage, DeadLetterQuery, DeadLetterRetryOptions, DeadLetters
} from './jobs/dead-letters.ts'
export type { JobHandle } from './jobs/handle.ts'
export type { Health, HealthStatus } from './jobs/health.ts'
export type {
  BackgroundTaskMap, Handler, InlineFunction, PayloadOfName, PayloadOfSchema, PayloadOfTask, ResultOfTask, Task, TaskName, TaskOptions
} from './jobs/task.ts'
export type { Json } from './json.ts'
export type { Action, Authorize, BackgroundTasksOptions, HealthOptions, RetentionOptions, RoutesOptions } from './options.ts'
