/** The door. */
export { backgroundTasks, backgroundTasks as default } from './plugin.ts'
export { memory, type MemoryOptions } from './backends/memory/index.ts'
export {
  errors, JobAbortedError, RetryLaterError, UnrecoverableError,
  type AbortKind, type CodedErrorClass, type RetryLaterOptions
} from './errors.ts'
export type { Background } from './background.ts'
export type {
  Awaitable, Backend, BackendSettings, CancelAnswer, Change, FlowStore, GroupSettings, Incident, JobQuery, Load, Note, QueueCounts, QueueSettings, Rate,
  Retention, ScheduleStore, Sink, Tally
} from './backend.ts'
export type { Capabilities } from './capabilities.ts'
export type { Clock, Timer } from './clock.ts'
export type { AppEvent, AttemptEnded, AttemptEvent, BackgroundEvents, JobEvent } from './events.ts'
export type { ErrorFacts } from './describe.ts'
export type { AcceptedBody, AcceptJob, StageJob } from './http/reply.ts'
export type { StatusBody } from './http/views.ts'
export type {
  Attempt, Backoff, BackoffFunction, CancelReason, Carrier, ChildRecord, DelayReason, Duplicate, Duplicates, FailedAttempt, Failure, FinalState, FlowNode, JobContext,
  JobFacts, JobRecord, JobState, Local, NewJob, OmittedResult, Outcome, Policy, ResponseOutcome, RetryIf, When
} from './job.ts'
export type { JobOptions } from './job-options.ts'
export type { BulkJob } from './jobs/bulk.ts'
export type { FlowHandle, FlowJob, FlowOptions } from './jobs/flow.ts'
export type { FinishedOptions, JobPage, JobsQuery, QueueStatus } from './jobs/control.ts'
export type { DeadLetter, DeadLetterGroup } from './jobs/dead-letter-groups.ts'
export type { Canary, DeadLetterAnswer, DeadLetterRetryOptions } from './jobs/dead-letter-replay.ts'
export type { DeadLetterFilter, DeadLetterGroups, DeadLetterPage, DeadLetterQuery, DeadLetters } from './jobs/dead-letters.ts'
export type { TaskHooks } from './jobs/hooks.ts'
export type { JobHandle } from './jobs/handle.ts'
export type { ScheduleOptions, ScheduleRecord } from './jobs/schedule.ts'
export type { Health, HealthStatus } from './jobs/health.ts'
export type { LeakedBodies, QueueStats, Stats } from './jobs/stats.ts'
export type {
  BackgroundTaskMap, Handler, InlineFunction, PayloadOfName, PayloadOfSchema, PayloadOfTask, ResultOfTask, Task, TaskName, TaskOptions,
  WorkerTaskOptions
} from './jobs/task.ts'
export type { ThreadContext, ThreadLog } from './jobs/thread-entry.ts'
export type { Json } from './json.ts'
export type { AttemptMade, AttemptScope, JobMade, Propagator } from './propagator.ts'
export type { Fire, Firing, KeptSchedule, Missed, Overlap, Schedule, ScheduleRule } from './schedule.ts'
export type { Action, Authorize, BackgroundTasksOptions, GroupsOptions, Role, HealthOptions, QueueOptions, RetentionOptions } from './options.ts'
export type { RoutesOptions } from './route-options.ts'
