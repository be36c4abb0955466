/** Imported first, it watches every test of the file for leaks. */
import t from 'tap'
import { watchLeaks } from './leaks.ts'

// Fastify closes an HTTP/2 connection after a refused body by a header that HTTP/2 does not have.
watchLeaks(t, { allowWarnings: /connection header is not valid/ })
