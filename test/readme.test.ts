import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { test } from 'tap'
import ts from 'typescript'
import { errors } from '../lib/index.ts'

const root = resolve(import.meta.dirname, '..')
const readme = readFileSync(join(root, 'README.md'), 'utf8')
/** Those of the rooms go on where the first one stops. */
const readmes = ['README.md', 'test/proof/README.md', ...readdirSync(join(root, 'lib'), { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('README.md')).map((file) => join('lib', file))]
  .map((file) => ({ file, text: readFileSync(join(root, file), 'utf8') }))
const all = readmes.map(({ text }) => text).join('\n')
const blocks = [...all.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(([, language, code], n) => ({ name: `readme-${n}.ts`, language, code: code as string }))

/** What the shorter blocks take as given. */
const prelude = `
import Fastify from 'fastify'
import backgroundTasks, { RetryLaterError, UnrecoverableError, type PayloadOfTask } from 'fastify-background-tasks'
const app = Fastify()
await app.register(backgroundTasks, { queues: { mail: {} } })
const sendEmail = app.background.define('send-email', async (payload: { to: string }) => payload.to)
declare function isBusy (): boolean
declare const breaker: { opened: boolean, fire (order: string): Promise<unknown> }
declare const jobId: string
declare function show (status: unknown): void
declare class EventSource { constructor (url: string); onmessage: ((event: { data: string }) => void) | null }
declare const reporter: { captureException (error: unknown, about: object): void }
void [show, EventSource, RetryLaterError, UnrecoverableError, sendEmail, jobId, reporter]
`

test('every block of code in the READMEs compiles', (t) => {
  const sources = new Map<string, string>()
  const resizing = blocks.find(({ code }) => code.includes("define('resize'"))?.code ?? ''
  for (const { name, language, code } of blocks) {
    if (language !== 'ts' && language !== 'js') continue
    const whole = code.includes('import Fastify') ? code : `${prelude}${code.includes('typeof resize') ? resizing : ''}${code}`
    sources.set(join(root, name), whole)
  }
  t.ok(sources.size >= 5, `${sources.size} blocks`)
  const { options } = ts.convertCompilerOptionsFromJson({
    target: 'es2023', module: 'nodenext', types: ['node'], strict: true, noEmit: true, skipLibCheck: true, noImplicitAny: false
  }, root)
  const host = ts.createCompilerHost(options)
  const disk = { ...host }
  /** The declarations of Node, Fastify and ours are read once for all programs. */
  const parsed = new Map<string, ts.SourceFile | undefined>()
  host.getSourceFile = (name, ...rest) => {
    const text = sources.get(name)
    if (text !== undefined) return ts.createSourceFile(name, text, rest[0])
    if (!parsed.has(name)) parsed.set(name, disk.getSourceFile(name, ...rest))
    return parsed.get(name)
  }
  host.fileExists = (name) => sources.has(name) || disk.fileExists(name)
  host.readFile = (name) => sources.get(name) ?? disk.readFile(name)
  // A declaration merged in one block would count in all of its program.
  const merges = (name: string): boolean => sources.get(name)?.includes('declare module') === true
  const programs = [[...sources.keys()].filter((name) => !merges(name)), ...[...sources.keys()].filter(merges).map((name) => [name])]
  for (const names of programs) {
    const program = ts.createProgram(names, options, host)
    for (const name of names) {
      const faults = ts.getPreEmitDiagnostics(program, program.getSourceFile(name))
      t.same(faults.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, ' ')), [], name)
    }
  }
  t.end()
})

test('the first block runs as it stands', async (t) => {
  const folder = join(root, '.tap', 'readme')
  mkdirSync(folder, { recursive: true })
  const program = join(folder, 'first.mjs')
  const first = blocks.find(({ code }) => code.includes('app.listen'))?.code ?? ''
  t.ok(first.trim().split('\n').length <= 17)
  writeFileSync(program, first.replace('port: 3000', 'port: 0'))
  const service = spawn(process.execPath, [program], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => service.kill())
  const lines: Array<Record<string, string>> = []
  let rest = ''
  const line = (text: string): Promise<void> => new Promise((found) => {
    service.stdout.on('data', function look (chunk: Buffer) {
      rest += chunk.toString()
      const whole = rest.split('\n')
      rest = whole.pop() as string
      lines.push(...whole.map((json) => JSON.parse(json) as Record<string, string>))
      if (!lines.some(({ msg }) => msg?.includes(text))) return
      service.stdout.off('data', look)
      found()
    })
  })
  await line('Server listening')
  const base = lines.flatMap(({ msg }) => msg?.match(/http:\S+/)?.[0] ?? [])[0] as string
  const completed = line('job completed')
  const response = await fetch(`${base}/signup`, { method: 'POST' })
  t.equal(response.status, 202)
  await response.arrayBuffer()
  await completed
  let status: Record<string, unknown> = {}
  while (status.finishedAt == null) status = await (await fetch(base + response.headers.get('location'))).json() as Record<string, unknown>
  t.match(status, { name: 'welcome', state: 'completed', attemptsMade: 1, result: { sent: 'ada@example.org' } })
  service.kill()
  await once(service, 'exit')
})

test('the README is a map, and every link in it leads somewhere', (t) => {
  t.ok(readme.split('\n').length <= 390, 'short')
  const anchors = (text: string): Set<string> => new Set([...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) => heading.toLowerCase().replaceAll(/[^\w\- ]/g, '').replaceAll(' ', '-')))
  for (const { file, text } of readmes) {
    for (const [, link = ''] of text.matchAll(/\]\(((?!http)[^)]+)\)/g)) {
      const [path = '', anchor] = link.split('#')
      const target = path === '' ? file : join(dirname(file), path)
      t.ok(existsSync(join(root, target)), `${file}: ${link}`)
      if (anchor !== undefined) t.ok(anchors(readFileSync(join(root, target), 'utf8')).has(anchor), `${file}: ${link}`)
    }
  }
  t.end()
})

test('the README lists every error code', (t) => {
  for (const ErrorClass of Object.values(errors)) {
    const { code } = new (ErrorClass as new () => { code: string })()
    t.ok(readme.includes(`\`${code.replace('FST_BG_', '')}\``), code)
  }
  t.end()
})

test('the README names every option of the plugin and of jobs', (t) => {
  for (const file of ['options.ts', 'job-options.ts', 'route-options.ts']) {
    const source = readFileSync(join(root, 'lib', file), 'utf8')
    for (const [, name] of source.matchAll(/^ {2}(\w+)\?: /gm)) t.ok(readme.includes(name as string), `${file} ${name}`)
  }
  t.end()
})

test('the map names every file of lib', (t) => {
  const map = readme.slice(readme.indexOf('## Map of'))
  const files = ts.sys.readDirectory(join(root, 'lib'), ['.ts']).map((file) => file.slice(join(root, 'lib').length + 1))
  for (const file of files) {
    if (file.startsWith('backends/memory/')) continue
    const name = file.includes('/') ? (file.split('/')[1] as string).replace('.ts', '') : file
    t.ok(map.includes(`\`${name}\``) || map.includes(name), file)
  }
  t.end()
})
