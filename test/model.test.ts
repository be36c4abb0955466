/** The short form of the model test; the long one is `npm run proof:model`. */
import fc from 'fast-check'
import t from 'tap'
import { memory, type Clock, type JobHandle } from '../lib/index.ts'
import { check } from './proof/check.ts'
import { plans } from './proof/plan.ts'
import { regressions } from './proof/regressions.ts'
import { TestClock } from './support/clock.ts'
import { setup } from './support/harness.ts'
import { watchLeaks } from './support/leaks.ts'
import { seed } from './support/seed.ts'

watchLeaks(t)
fc.configureGlobal({ seed })

t.test('random sequences of everything that can be asked for keep to the model', async (t) => {
  const { failed, numRuns, counterexample, errorInstance } = await fc.check(fc.asyncProperty(plans, check), { numRuns: 400 })
  t.notOk(failed, `${numRuns} sequences, seed ${seed}`, { counterexample: JSON.stringify(counterexample?.[0]), error: String(errorInstance) })
})

for (const [title, ops] of Object.entries(regressions)) {
  t.test(`no more: ${title}`, (t) => t.resolves(check(ops)))
}

// Out of reach of the sequences: in them no time passes inside a body, so that no slot has to wait for its next turn.
t.test('no more: a job cancelled after its delivery, before its body began, ran all the same', async (t) => {
  let spent = 0
  const still = new TestClock()
  const { now, monotonic, random, soon } = still
  const clock: Clock = {
    now, random, soon, monotonic: () => monotonic() + spent, setTimer: (run, ms) => still.setTimer(run, ms), clearTimer: (timer) => { still.clearTimer(timer) }
  }
  const { app, background } = await setup(t, { backend: memory({ clock }) })
  await app.ready()
  const ran: string[] = []
  let answer: Promise<unknown> | undefined
  const handles: JobHandle[] = []
  await background.add(() => {
    ran.push('first')
    spent += 10 // more than a turn's slice: the second waits, delivered, for the next turn
    answer = background.cancel(handles[0]?.id as string)
  })
  const second = await background.add(() => { ran.push('second') })
  handles.push(second)
  await background.onIdle()
  t.equal(await answer, 'cancelling')
  t.same(ran, ['first'])
  t.match(await background.get(second.id), { state: 'cancelled', reason: 'user' })
})
