/** Flows in the model: who waits for whom. */
import type { JobState } from '../../lib/job.ts'
import type { Family, Job } from './parts.ts'
import type { Member } from './plan.ts'

/** The jobs of a flow, as they were made. */
export function relate (jobs: readonly Job[], members: readonly Member[]): void {
  const path: Family[] = []
  jobs.forEach((job, at) => {
    const { up, ignored } = members[at] as Member
    path.length = at === 0 ? 0 : Math.max(1, path.length - up)
    const parent = path.length === 0 ? undefined : jobs[jobs.findIndex(({ family }) => family === path.at(-1))]
    const family: Family = { parent, ignored, children: [], open: new Set(), broken: false, shown: [] }
    job.family = family
    parent?.family?.children.push(job)
    parent?.family?.open.add(job)
    path.push(family)
  })
}

/** A fault's text where a job goes on that waits for its children. */
export function kept ({ state, family }: Job, to: JobState): string | undefined {
  const open = family?.open.size ?? 0
  if (to === 'waiting-children') return state === 'pending' && open > 0 ? undefined : 'it waits for nobody'
  if (to !== 'waiting' && to !== 'delayed') return undefined
  if (state === 'pending' && open > 0) return 'it has children to wait for'
  return state === 'waiting-children' && (open > 0 || family?.broken === true) ? 'a child has not ended as it asks' : undefined
}

export function ended (job: Job, to: JobState): void {
  const parent = job.family?.parent
  if (parent?.family?.open.delete(job) !== true || parent.state !== 'waiting-children') return
  if (to !== 'completed' && job.family?.ignored === false) parent.family.broken = true
}

/** Its attempt is told of its children as they are now. */
export function shows ({ family }: Job): void {
  if (family !== undefined) family.shown = family.children.map(({ state }) => state)
}

/** It, or one that waits for it to be a parent's child no more. */
export function isUnder (job: Job, top: Job | undefined): boolean {
  for (let one: Job | undefined = job; one !== undefined && top !== undefined; one = one.family?.parent) if (one === top) return true
  return false
}

/** What a cancel of the job has to cancel with it. */
export function waitingFor (job: Job): Job[] {
  if (job.state !== 'waiting-children') return []
  return [...job.family?.open ?? []].filter(({ state }) => state !== 'active').flatMap((child) => [child, ...waitingFor(child)])
}

/** What had to become of it, and has not. */
export function forgotten ({ state, family }: Job): string | undefined {
  return state === 'waiting-children' && (family?.broken === true || family?.open.size === 0) ? 'its children have ended, and it still waits for them' : undefined
}

/** Its members, nested as `flow()` takes them. */
export function nested<T extends object> (members: readonly Member[], made: (member: Member, at: number) => T): T & { children: T[] } {
  const path: Array<T & { children: T[] }> = []
  members.forEach((member, at) => {
    const node = { ...made(member, at), children: [] }
    path.length = at === 0 ? 0 : Math.max(1, path.length - member.up)
    path.at(-1)?.children.push(node)
    path.push(node)
  })
  return path[0] as T & { children: T[] }
}
