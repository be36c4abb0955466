/** What the plugin takes and how it fits in, in one process: see http/responses.test.ts. */
import './support/watched.ts'
import './plugin/plugin.ts'
import './plugin/options.ts'
import './plugin/define.ts'
import './plugin/queues.ts'
import './plugin/groups.ts'
import './plugin/role.ts'
import './plugin/testing.ts'
