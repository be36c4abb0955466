/** The door for tests: backends that run jobs when a test says so, or at once, on a clock that the test moves. */
export { TestClock } from './clock.ts'
export type { Fake, IdempotencyFault } from './idempotency.ts'
export { inline } from './inline.ts'
export { manual, type ManualBackend } from './manual.ts'
export type { TestBackend, TestBackendOptions } from './recorder.ts'
