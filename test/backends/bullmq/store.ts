/** A server as a store of jobs; each backend gets a namespace of its own. */
import type { Backend } from '../../../lib/backend.ts'
import { bullmq, type BullmqOptions } from '../../../lib/backends/bullmq/index.ts'
import type { Kind } from '../../support/servers/find.ts'

export interface Store {
  readonly kind: Kind
  readonly url: string
  /** Of a namespace that nobody else has. */
  readonly options: (space?: string) => BullmqOptions
  readonly create: (more?: Partial<BullmqOptions>) => Backend
}

let spaces = 0
export const newSpace = (): string => `bg_${process.pid}_${spaces++}`

export function storeAt (kind: Kind, url: string): Store {
  const options = (space = newSpace()): BullmqOptions =>
    kind.name === 'redis' ? { connection: url, prefix: space } : { connection: { connectionString: url, schema: space } }
  return { kind, url, options, create: (more) => bullmq({ ...options(), ...more }) }
}
