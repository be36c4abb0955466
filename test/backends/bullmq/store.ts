/** BullMQ over one of its stores, for tests and proofs. */
import type { Backend } from '../../../lib/backend.ts'
import { bullmq, type BullmqOptions } from '../../../lib/backends/bullmq/index.ts'
import type { Kind } from '../../support/servers/find.ts'

export interface Store {
  readonly kind: Kind
  readonly url: string
  /** Options for a namespace of its own; with the name of one, for that. */
  readonly options: (space?: string) => BullmqOptions
  readonly create: (space?: string, more?: Partial<BullmqOptions>) => Backend
}

let spaces = 0
export const newSpace = (): string => `bg_${process.pid}_${spaces++}`

export function storeAt (kind: Kind, url: string): Store {
  const options = (space = newSpace()): BullmqOptions =>
    kind.name === 'redis' ? { connection: url, prefix: space } : { connection: { connectionString: url, schema: space } }
  return { kind, url, options, create: (space, more) => bullmq({ ...options(space), ...more }) }
}
