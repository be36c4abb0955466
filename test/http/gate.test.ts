/** The gate, in one process: see responses.test.ts. */
import '../support/watched.ts'
import './gate/when.ts'
import './gate/policies.ts'
import './gate/max-hold.ts'
import './gate/context.ts'
