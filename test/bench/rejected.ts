/**
 * What was tried for more speed, and stays out: the built library with a few lines changed, measured beside the library
 * as it is when a goal is missed. An idea that is worth its price moves from here into `lib/`.
 */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Group } from './plan.ts'

export interface Idea {
  readonly name: string
  /** Why it stays out. */
  readonly against: string
  /** First words of the ids of the groups it was meant for. */
  readonly groups: readonly string[]
  /** In the built files under `lib/`: what stands there, and what instead. */
  readonly edits: ReadonlyArray<readonly [file: string, from: string, to: string]>
}

const JOBS = ['fifo', 'mixed', 'turns', 'async-context']
const REQUESTS = ['inject', 'keep-alive']
const REFUSALS = ['overload']
const LATENCIES = ['latency']
const KEPT = ['store-1', 'store-delay']

const IDEAS: readonly Idea[] = [
  {
    name: 'one async scope for all bodies',
    against: 'what one body enters with AsyncLocalStorage.enterWith reaches the next one',
    groups: [...JOBS, ...REQUESTS],
    edits: [
      ['jobs/runner.js', "local?.context ?? new AsyncResource('BackgroundTask')", 'local?.context ?? SHARED'],
      ['jobs/runner.js', 'function runInScope(', "const SHARED = new AsyncResource('BackgroundTask');\nfunction runInScope("]
    ]
  },
  {
    name: 'the stored payload itself for the attempt',
    against: 'a handler that changes its payload changes what a retry gets, and what the status shows',
    groups: [...JOBS, ...REQUESTS],
    edits: [['backends/memory/entry.js', 'return cloneJson(this.entry.job.payload)', 'return this.entry.job.payload']]
  },
  {
    name: 'payloads copied through their text',
    against: 'slower; it was so before',
    groups: JOBS,
    edits: [['json.js', 'const plain = copyPlain(value, copied, 0);', 'const plain = NOT_PLAIN;']]
  },
  {
    name: 'slices of 0.25 ms',
    against: 'more turns for the same jobs; the longest turns are not those of slices',
    groups: ['turns', ...LATENCIES],
    edits: [['jobs/turns.js', 'const SLICE = 0.5;', 'const SLICE = 0.25;']]
  },
  {
    name: 'a floor of a quarter of the time',
    against: 'requests wait longer under load',
    groups: LATENCIES,
    edits: [['jobs/turns.js', 'const YIELDED = 7;', 'const YIELDED = 3;']]
  },
  {
    name: 'listening to the close of a response alone',
    against: 'under five percent; an answer to inject, and one on a reset HTTP/2 stream, is told by finish',
    groups: REQUESTS,
    edits: [
      ['http/gate.js', "raw.on('finish', onFinish);\n        raw.on('close', onClose);", "raw.on('close', onFinish);"],
      ['http/gate.js', "raw.removeListener('finish', onFinish);\n    raw.removeListener('close', onClose);", '']
    ]
  },
  {
    name: 'jobs that do not wait for their response',
    against: 'they run before the answer is sent; what is left is the price of a job',
    groups: REQUESTS,
    edits: [['http/reply.js', 'backend.enqueue(jobs, true)', 'backend.enqueue(jobs, false)'], ['http/gate.js', 'stage(reply, job) {', 'stage(reply, job) {\n        return;']]
  },
  {
    name: 'no index by the time of ends',
    against: 'retention would read the whole file to find what is old',
    groups: KEPT,
    edits: [['backends/sqlite/schema.js', "CREATE INDEX background_done ON background_jobs (ended) WHERE state IN ('completed', 'cancelled');\n", '']]
  },
  {
    name: 'checkpoints ten times rarer',
    against: 'each takes ten times as long, and holds the loop for that; the file beside grows to 40 MB',
    groups: KEPT,
    edits: [['backends/sqlite/driver.js', "database.exec('PRAGMA cache_size = -16000');", "database.exec('PRAGMA cache_size = -16000');\n        database.exec('PRAGMA wal_autocheckpoint = 10000');"]]
  },
  {
    name: 'commits that wait a ms for others',
    against: 'each job, and each answer with one, waits for that ms too',
    groups: KEPT,
    edits: [['backends/sqlite/commits.js', 'this.#parts.clock.soon(() => {', 'setTimeout(() => {'], ['backends/sqlite/commits.js', 'this.#flush();\n        });', 'this.#flush();\n        }, 1);']]
  },
  {
    name: 'refusals that are not counted, logged or remembered',
    against: 'what is lost without a word is what this library exists against',
    groups: REFUSALS,
    edits: [['jobs/add.js', 'this.#refusals.set(queue, this.#clock.monotonic());\n        this.#observer.refused(queue, task, jobs, full);', '']]
  },
  {
    name: 'one error for all refusals',
    against: 'what one caller writes onto its error, all others read',
    groups: REFUSALS,
    edits: [
      ['jobs/add.js', "throw Object.assign(new errors.QueueFull(queue, full), { headers: { 'retry-after': '1' } });", 'throw ONE;'],
      ['jobs/add.js', 'export class Intake', "const ONE = Object.assign(new errors.QueueFull('default', 'its size'), { headers: { 'retry-after': '1' } });\nexport class Intake"]
    ]
  }
]

/** The group's own entry as it is, and with each idea that was meant for it. */
export function withIdeas (group: Group): Group | undefined {
  const ideas = IDEAS.filter(({ groups }) => groups.some((name) => group.id.startsWith(name)))
  const entry = group.entries.find(({ name }) => name === group.profiled)
  if (ideas.length === 0 || entry === undefined) return undefined
  return {
    ...group,
    id: `${group.id}, rejected`,
    title: `What was tried for: ${group.title}`,
    rounds: Math.min(group.rounds, 5),
    atLeastOnce: true,
    base: group.base === undefined ? undefined : 'as it is',
    entries: [{ name: 'as it is', settings: entry.settings }, ...ideas.map((idea) => ({ name: idea.name, settings: entry.settings, build: build(idea) }))],
    note: ideas.map(({ name, against }) => `${name}: ${against}`).join('\n  ')
  }
}

const built = new Map<Idea, URL>()

/** A copy of the built bench with the idea in it. */
function build (idea: Idea): URL {
  const known = built.get(idea)
  if (known !== undefined) return known
  const here = new URL('../../', import.meta.url)
  const there = new URL(`rejected/${built.size}/`, here)
  mkdirSync(there, { recursive: true })
  for (const part of ['lib/', 'test/']) cpSync(fileURLToPath(new URL(part, here)), fileURLToPath(new URL(part, there)), { recursive: true })
  for (const [file, from, to] of idea.edits) {
    const place = new URL(`lib/${file}`, there)
    const text = readFileSync(place, 'utf8')
    if (text.split(from).length !== 2) throw new Error(`"${idea.name}": ${file} has not exactly one "${from}"`)
    writeFileSync(place, text.replace(from, () => to))
  }
  built.set(idea, there)
  return there
}
