/** What nobody should pass, throw, return or send, in one process: see http/responses.test.ts. */
import './support/watched.ts'
import './hostile/options.ts'
import './hostile/policies.ts'
import './hostile/jobs.ts'
import './hostile/input.ts'
