/** Who waits for whom: a parent waits for its children, and hears of each end. An application without flows has none of this. */
import type { Sink } from '../../backend.ts'
import type { ChildRecord, FinalState, NewJob, FlowNode } from '../../job.ts'
import { cloneJson } from '../../json.ts'
import { copyFacts } from '../../describe.ts'
import type { Entry } from './entry.ts'

class Family {
  readonly parent: Entry
  readonly children: Entry[] = []
  /** Those that have not ended. */
  readonly open = new Set<Entry>()

  constructor (parent: Entry) {
    this.parent = parent
  }
}

interface Kinship {
  readonly family: Family
  /** The parent starts whatever becomes of the child. */
  readonly ignored: boolean
}

const families = new WeakMap<Entry, Family>()
const kinships = new WeakMap<Entry, Kinship>()

/** What a family asks of the life of its jobs. */
export interface FlowLife {
  add (job: NewJob, now: number): Entry
  /** It may start, or wait for its time. */
  admit (entry: Entry, now: number): void
  stir (queue: Entry['home']): void
  awaitChildren (entry: Entry, now: number): void
  fail (entry: Entry, child: Entry, now: number): void
}

export class Families {
  readonly #life: FlowLife
  readonly #sink: Sink

  constructor (life: FlowLife, sink: Sink) {
    this.#life = life
    this.#sink = sink
  }

  add (node: FlowNode, now: number, kin?: Family): void {
    const entry = this.#life.add(node.job, now)
    if (kin !== undefined) {
      kin.children.push(entry)
      kin.open.add(entry)
      kinships.set(entry, { family: kin, ignored: node.ignored })
    }
    if (node.children.length === 0) {
      this.#life.admit(entry, now)
      return this.#life.stir(entry.home)
    }
    this.#life.awaitChildren(entry, now)
    const family = new Family(entry)
    families.set(entry, family)
    for (const child of node.children) this.add(child, now, family)
  }

  ended (entry: Entry, state: FinalState, now: number): void {
    const kinship = kinships.get(entry)
    if (kinship?.family.open.delete(entry) !== true) return
    const { family: { parent, open }, ignored } = kinship
    if (parent.state !== 'waiting-children') return
    if (state !== 'completed' && !ignored) {
      this.#life.fail(parent, entry, now)
      this.#sink.report({ kind: 'child-failed', job: parent.job, child: entry.id })
    } else if (open.size === 0) {
      this.#life.admit(parent, now)
      this.#life.stir(parent.home)
    }
  }

  /** The children that wait for nothing any more when their parent is cancelled. */
  waitingFor (parent: Entry): Entry[] {
    return [...families.get(parent)?.open ?? []].filter(({ attempt }) => attempt === undefined)
  }
}

export function parentOf (entry: Entry): string | undefined {
  return kinships.get(entry)?.family.parent.id
}

export function childrenOf (entry: Entry): ChildRecord[] | undefined {
  return families.get(entry)?.children.map(({ id, job: { name }, state, result, ending }) => ({
    id, name, state,
    ...(result !== undefined && { result: cloneJson(result) }),
    ...(ending?.error !== undefined && { error: copyFacts(ending.error) })
  }))
}
