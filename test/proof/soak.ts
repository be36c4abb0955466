/**
 * The long form of the soak: SOAK_JOBS accepted jobs (5 000 000) in this process. Fails on any fault, and when the
 * heap grows by more than BOUND bytes a job: the smallest object that a job could leave behind has 12.
 */
import { soak } from './soak-run.ts'

const BOUND = 0.5
const jobs = Number(process.env.SOAK_JOBS ?? 5_000_000)

console.log(`soak: ${jobs} jobs, Node ${process.version}, ${new Date().toISOString()}`)
const began = process.hrtime.bigint()
const { load, samples, slope } = await soak(jobs, console.log)
const seconds = Number(process.hrtime.bigint() - began) / 1e9
console.log(`accepted ${load.jobs} ${JSON.stringify(load.accepted)}, refused ${load.refused}, ${load.requests} requests, ${seconds.toFixed(0)} s`)
console.log(`waiting room at most ${load.most.jobs} jobs and ${load.most.bytes} bytes; ${load.collected} closures over requests let go`)
console.log(`heap ${samples[0]?.bytes} at first, ${samples.at(-1)?.bytes} at last, slope ${slope.toFixed(4)} bytes a job, at most ${BOUND}`)
if (slope > BOUND) load.faults.push('the heap grows')
for (const fault of new Set(load.faults)) console.log(`fault: ${fault}`)
console.log(load.faults.length === 0 ? 'passed' : 'failed')
if (load.faults.length > 0) process.exitCode = 1
