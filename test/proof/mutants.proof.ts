/** The proofs can fail: each of them sees lib/ broken on purpose, and says what is wrong with it. */
import t from 'tap'
import { compile, prove } from './compile.ts'
import { mutants } from './mutants.ts'

t.jobs = 2
const copies = compile()
t.teardown(() => { copies.remove() })

t.test('lib/ as it is holds', async (t) => {
  const { code, said } = await prove(copies.sound, 'owner', 'regressions', 'model', 'soak', 'chaos')
  t.equal(code, 0, said)
})

for (const mutant of mutants) {
  t.test(`seen: ${mutant.title}`, { buffered: true }, async (t) => {
    const { code, said } = await prove(copies.broken(mutant), mutant.by)
    t.equal(code, 1, 'the proof fails')
    t.match(said, new RegExp(`^${mutant.by} fails: `))
    t.match(said, mutant.says)
  })
}
