/** The examples that are programs of their own: each prints what its last lines say. */
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'

const folder = resolve(import.meta.dirname, '../../examples')
const PRINTS = '\n// Prints:\n'
const programs = readdirSync(folder).filter((file) => file.endsWith('.js')).map((file) => [file, readFileSync(join(folder, file), 'utf8')] as const)
  .filter(([, source]) => source.includes(PRINTS))

async function run (...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: folder, timeout: 60_000, env: { ...process.env, NODE_OPTIONS: '', NODE_TEST_CONTEXT: undefined } })
  return stdout
}

t.jobs = 4
t.ok(programs.length >= 7)
for (const [file, source] of programs) {
  const [program = '', printed = ''] = source.split(PRINTS)
  t.test(file, { buffered: true }, async (t) => {
    t.ok(program.split('\n').length <= 60, 'short')
    t.equal(await run(file), printed.replaceAll(/^\/\/ ?/gm, ''))
  })
}

t.test('the example of a test passes', { buffered: true }, async (t) => {
  t.match(await run('--test', 'testing-your-app.js'), /pass 2\n[^]*fail 0\n/)
})
