/** Errors that escape from jobs to the process: each is logged under its job, and none is swallowed. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t, { test } from 'tap'
import { watchLeaks } from '../support/leaks.ts'

watchLeaks(t)

interface Run {
  lines: Array<Record<string, any>>
  stderr: string
  code: number | null
}

const program = fileURLToPath(new URL('../support/fixtures/floating.js', import.meta.url))

/** A process of its own: what Node does with such errors is done to the whole process. One that hangs is killed. */
function run (kind: string, node: string[] = []): Promise<Run> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [...node, program, kind], { timeout: 30_000, killSignal: 'SIGKILL', env: { ...process.env, NODE_OPTIONS: '' } }, (_error, stdout, stderr) => {
      const lines = stdout.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as Record<string, any>)
      resolve({ lines, stderr, code: child.exitCode })
    })
  })
}

const ours = (lines: Run['lines']): Run['lines'] => lines.filter(({ msg }) => /^unhandled (rejection|exception) in a job$/.test(String(msg)))

test('where the application listens, each is logged under its own job, and the application hears all of them', async (t) => {
  const { lines, stderr, code } = await run('all')
  const rejected = ['at once', 'in a chain', 'after an await', 'after the end', 'in a promise of its own', 'a frozen error', 'undefined']
  const thrown = ['in a timer', 'in an abort listener']
  const said = ours(lines)
  for (const [kind, names] of [['rejection', rejected], ['exception', thrown]] as const) {
    for (const name of names) {
      t.match(said.filter(({ task }) => task === name), [{
        level: 50, msg: `unhandled ${kind} in a job`, jobId: /^[0-9a-f-]{36}$/, queue: 'default', attempt: 1, err: { message: name }
      }], name)
    }
  }
  t.equal(said.length, rejected.length + thrown.length)
  t.equal(new Set(said.map(({ jobId }) => jobId as string)).size, said.length, 'each under another job')
  const heard = lines.filter((line) => 'heard' in line).map(({ heard, text }) => `${heard} ${text}`)
  t.strictSame(heard.sort(), [...rejected.map((name) => `unhandledRejection ${name}`), ...thrown.map((name) => `uncaughtException ${name}`), 'unhandledRejection the job of nobody'].sort())
  t.match(lines.find((line) => 'incidents' in line), { incidents: { floating: said.length }, queues: { default: { completed: said.length - 1, failed: 1 } }, during: [1, 1], after: [0, 0] })
  t.equal(stderr, '')
  t.equal(code, 0)
})

test('where nobody listens, it is logged, and then Node ends the process as it would without us', async (t) => {
  const { lines, stderr, code } = await run('at once')
  t.match(ours(lines), [{ task: 'at once', err: { message: 'at once' } }])
  t.match(stderr, /Error: at once\n/)
  t.equal(code, 1)
})

test('without a logger subscribers hear of it, who listens once keeps it from Node, and what a subscriber throws is no error of the job', async (t) => {
  const { lines, stderr, code } = await run('to a subscriber')
  t.strictSame(lines.map(({ heard, text }) => `${heard} ${text}`).sort(), ['at once at once', 'uncaughtException of a subscriber', 'unhandledRejection at once'])
  t.equal(stderr, '')
  t.equal(code, 0)
})

test('a rejection of no job is left to Node', async (t) => {
  const { lines, stderr, code } = await run('the job of nobody')
  t.strictSame(ours(lines), [])
  t.match(stderr, /Error: the job of nobody\n/)
  t.equal(code, 1)
})

test('where Node is told to let rejections be, the process lives', async (t) => {
  const { lines, stderr, code } = await run('after the end', ['--unhandled-rejections=none'])
  t.match(ours(lines), [{ task: 'after the end' }])
  t.equal(stderr, '')
  t.equal(code, 0)
})

test('a job that ends the process takes the others with it: they are named in its last moment', async (t) => {
  for (const [kind, task, code] of [['process.exit', 'exits', 3], ['in an abort listener', 'in an abort listener', 1]] as const) {
    const { lines, code: ended } = await run(kind)
    t.match(lines.filter(({ msg }) => msg === 'shutdown left jobs undone'), [{ count: 1, jobs: [{ task, state: 'cancelled' }] }], kind)
    t.equal(ended, code)
  }
})
