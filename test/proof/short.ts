/** The short proofs in a process of their own, for copies of lib/ that are broken on purpose: `node short.js model soak`. */
import fc from 'fast-check'
import { chaos } from './chaos/run.ts'
import { check } from './check.ts'
import { checkOwner } from './owner.ts'
import { plans } from './plan.ts'
import { regressions } from './regressions.ts'
import { soak } from './soak-run.ts'

const proofs: Record<string, () => Promise<unknown>> = {
  owner: checkOwner,
  async regressions () {
    for (const ops of Object.values(regressions)) await check(ops)
  },
  async model () {
    // One seed, and no shrinking: this asks whether a fault is found, not which is the smallest way to it.
    const { failed, numRuns, errorInstance } = await fc.check(fc.asyncProperty(plans, check), { numRuns: 300, seed: 1, endOnFailure: true })
    if (failed) throw new Error(`sequence ${numRuns}, ${(errorInstance as Error).message}`)
  },
  async soak () {
    const { load } = await soak(3_000, () => {})
    if (load.faults.length > 0) throw new Error(load.faults.join('; '))
  },
  async chaos () {
    const { clean, sum, examples } = await chaos({ requests: 1_500, seed: 1, patience: 2_000 })
    if (!clean) throw new Error(`${sum}; ${examples[0]}`)
  }
}

for (const name of process.argv.slice(2)) {
  try {
    await (proofs[name] as () => Promise<unknown>)()
    console.log(`${name} holds`)
  } catch (error) {
    console.log(`${name} fails: ${(error as Error).message.slice(0, 500)}`)
    process.exit(1)
  }
}
