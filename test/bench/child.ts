/**
 * One entry in a process of its own: it prepares, says so, and answers each message with a measurement, or with a
 * profile of several. By hand:
 * `node --expose-gc .bench/test/bench/child.js '{ "scenario": "timeouts", "attempts": 100000 }'`
 */
import { alarm } from './measure.ts'
import { prepare, type Settings } from './scenarios/index.ts'

/** A profile is of so many ms, in whole measurements. */
export type Question = 'measure' | { readonly profile: number }

const prepared = prepare(JSON.parse(process.argv[2] as string) as Settings)
process.on('disconnect', () => { void end() }) // who asked has gone

const { measure } = await prepared
if (process.send === undefined) {
  console.log(await measure())
  await end()
}
process.on('message', (question: Question) => { void answer(question).then((found) => process.send?.(found)) })
process.send?.('ready')

async function answer (question: Question): Promise<unknown> {
  if (question === 'measure') return measure()
  const { profile } = await import('./profile.ts')
  const over = alarm(question.profile)
  return profile(async () => {
    do await measure(); while (!over())
  })
}

async function end (): Promise<void> {
  const { close } = await prepared
  await close?.()
  process.exit()
}
