import { postgres } from '../../support/servers/postgres.ts'
import { interopOn } from './interop.ts'

await interopOn(postgres)
