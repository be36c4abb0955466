/**
 * The long form of the model test: PROOF_RUNS sequences (10 000) from PROOF_SEED (the clock's), each counterexample
 * printed as data that `regressions.ts` can keep.
 */
import fc from 'fast-check'
import { check } from './check.ts'
import { plans } from './plan.ts'

const numRuns = Number(process.env.PROOF_RUNS ?? 10_000)
const seed = Number(process.env.PROOF_SEED ?? Date.now() | 0)
const began = process.hrtime.bigint()
let steps = 0

console.log(`model: ${numRuns} sequences, seed ${seed}, Node ${process.version}, ${new Date().toISOString()}`)
const details = await fc.check(fc.asyncProperty(plans, async (ops) => {
  steps += ops.length
  await check(ops)
}), { numRuns, seed, interruptAfterTimeLimit: Number(process.env.PROOF_SECONDS ?? 3_600) * 1_000 })
const seconds = Number(process.hrtime.bigint() - began) / 1e9
if (details.failed) {
  console.log(`failed: seed ${seed}, path ${details.counterexamplePath}, ${details.numShrinks} shrinks`)
  console.log(JSON.stringify(details.counterexample?.[0]))
  console.log(String(details.errorInstance))
  process.exitCode = 1
} else if (details.interrupted) {
  console.log(`interrupted after ${details.numRuns} sequences`)
  process.exitCode = 1
} else console.log(`passed: ${details.numRuns} sequences, ${steps} steps, ${seconds.toFixed(1)} s`)
