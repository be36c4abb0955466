/**
 * `npm run bench`: what a job, a request and a refusal cost, beside what else there is.
 *
 * `npm run bench -- [--quick | --smoke] [--json=FILE] [--profile=NAME | NAME…]`; NAME is a group's id, or its first words: `fifo`, `fifo-1000`.
 * A goal that is missed is printed, in the full form with a profile and with what was tried and rejected; only a
 * measurement that fails is an error.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus, loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { findServer } from '../support/servers/find.ts'
import { redis } from '../support/servers/redis.ts'
import { judge } from './goals.ts'
import { createPlan, type Form, type Group } from './plan.ts'
import { goalsTable, groupTable, profileTable, summarize, type SummarizedRow } from './report.ts'
import { withIdeas } from './rejected.ts'
import { profileGroup, runGroup } from './rounds.ts'

/** Ms after which nothing more is begun; what runs then still ends. */
const BUDGET = { full: 900_000, quick: 170_000, smoke: 300_000 }
/** Ms more, to explain what was missed. */
const EXPLAIN = 240_000
/** A group of each kind: the ideas still fit the library. */
const IDEAS_SMOKED = new Set(['fifo-1000', 'turns', 'inject', 'latency-5', 'overload', 'store-100'])

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    quick: { type: 'boolean', default: false }, smoke: { type: 'boolean', default: false }, json: { type: 'string' }, profile: { type: 'string' }
  }
})
const form: Form = options.smoke ? 'smoke' : options.quick ? 'quick' : 'full'
const began = performance.now()
const deadline = began + BUDGET[form]
const machine = describeMachine()
console.log(`${machine.cpu}, ${machine.cores} cores, Node ${machine.node}, ${machine.packages.join(', ')}; load ${machine.load}`)

const server = await findServer(redis)
if (typeof server === 'string') {
  await run(createPlan(form, server))
} else {
  process.env.REDIS_URL = server.url // for the children
  await run(createPlan(form, undefined))
  await server.release()
}

async function run (groups: Group[]): Promise<void> {
  const names = options.profile === undefined ? positionals : [options.profile]
  const unknown = names.filter((name) => !groups.some((group) => hasName(group, name)))
  if (unknown.length > 0) {
    console.error(`no group ${unknown.join(', ')}; there are ${groups.map(({ id }) => id).join(', ')}`)
    process.exitCode = 1
    return
  }
  const plan = groups.filter((group) => names.length === 0 || names.some((name) => hasName(group, name)))
  if (options.profile === undefined) await measureAll(plan)
  else await profileAll(plan)
}

async function profileAll (plan: Group[]): Promise<object[]> {
  const profiles = []
  for (const group of plan) {
    try {
      const functions = await profileGroup(group)
      console.log(profileTable(group, functions))
      profiles.push({ id: group.id, functions })
    } catch (error) {
      console.log(`\nNo profile of ${group.id}: ${(error as Error).message}`)
      process.exitCode = 1
    }
  }
  return profiles
}

async function measureAll (plan: Group[]): Promise<void> {
  if (form !== 'smoke') console.log('Medians (lowest–highest round). CPU is of all threads of the process. × is how much more gets done in a CPU second.')
  const groups = new Map<string, SummarizedRow[]>()
  const report = await measureGroups(plan, deadline, groups)
  const goals = form === 'smoke' ? [] : judge(groups)
  if (goals.length > 0) console.log(goalsTable(goals))
  const missed = new Set(goals.filter(({ verdict }) => verdict === 'MISSED').map(({ group }) => group))
  const explained = form === 'quick' ? [] : plan.filter(({ id }) => form === 'smoke' ? IDEAS_SMOKED.has(id) : missed.has(id))
  const profiles = form === 'full' ? await profileAll(explained) : []
  const tried = explained.map(withIdeas).filter((group) => group !== undefined)
  const latest = Math.min(performance.now(), deadline) + EXPLAIN
  for (const [at, group] of tried.entries()) {
    // Each has its share of the time that is left.
    report.push(...await measureGroups([group], performance.now() + (latest - performance.now()) / (tried.length - at)))
  }
  console.log(`\n${Math.round((performance.now() - began) / 1_000)} s; load ${loadNow()}`)
  if (options.json === undefined) return
  writeFileSync(options.json, JSON.stringify({ date: new Date().toISOString(), form, machine, groups: report, goals, profiles }, null, 2))
}

async function measureGroups (plan: Group[], until: number, into?: Map<string, SummarizedRow[]>): Promise<object[]> {
  const report: object[] = []
  for (const group of plan) {
    const before = loadNow()
    const rows = summarize(group, await runGroup(group, until, tell))
    tell('')
    const faulty = rows.some(({ fault, results }) => fault !== undefined || results.length === 0)
    if (faulty) process.exitCode = 1
    if (form === 'smoke' && !faulty) console.log(`${group.id}: ${rows.length} measured`) // numbers so cold would only mislead
    else console.log(`${groupTable(group, rows)}\n  load ${before} → ${loadNow()}`)
    into?.set(group.id, rows)
    report.push({ id: group.id, title: group.title, load: [before, loadNow()], rows })
  }
  return report
}

function hasName ({ id }: Group, name: string): boolean {
  return id === name || id.startsWith(`${name}-`)
}

function describeMachine () {
  const packages = ['p-queue', 'p-limit', 'fastq', 'fastify'].map((name) => {
    const { version } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, 'utf8')) as { version: string }
    return `${name} ${version}`
  })
  return { cpu: cpus()[0]?.model, cores: cpus().length, node: process.versions.node, packages, load: loadNow() }
}

function loadNow (): string {
  return loadavg().map((load) => load.toFixed(1)).join(' ')
}

/** Where it stands, on one line that the next one overwrites. */
function tell (text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${text}`)
}
