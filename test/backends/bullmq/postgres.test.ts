import { postgres } from '../../support/servers/postgres.ts'
import { contractOn, onStore } from './on.ts'

const store = await onStore(postgres)
if (store !== undefined) contractOn(store, 120)
