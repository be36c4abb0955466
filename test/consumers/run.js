// Our users as they are: the packed tarball, installed into empty folders, under every Node we support.
//
//   node test/consumers/run.js [node version …]
//
// Prints a line for each consumer and, where one fails, what it said. Exits 1 when one failed.

import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { promisify } from 'node:util'

const exec = promisify(execFile)
const here = import.meta.dirname
const root = mkdtempSync(join(tmpdir(), 'consumers-'))
const bin = (name) => join(root, 'node_modules', '.bin', name)
const install = ['install', '--no-audit', '--no-fund', '--ignore-scripts', '--prefer-offline', '--loglevel=error']
const versions = process.argv.length > 2 ? process.argv.slice(2) : ['20.19.0', '22', '24', '26']

/** Once: what TypeScript and the packagers' judges say. attw: of types that CommonJS gets as ES modules Node itself says more. */
const judges = (tarball) => [
  ['publint', 'All good', bin('publint'), tarball, '--strict'],
  ['are the types wrong', '', bin('attw'), tarball, '--profile', 'node16', '--ignore-rules', 'cjs-resolves-to-esm'],
  ['TypeScript, bundler', '', bin('tsc'), '-p', 'typescript/tsconfig.bundler.json']
]

/** On each Node: what it is, what it must say, what to run. */
const consumers = [
  ['CommonJS', 'hello ada true', 'node', 'commonjs/main.cjs'],
  ['TypeScript, plain', 'completed: {"greeting":"hello ada"}', 'node', 'typescript/out/plain.js'],
  ['TypeScript, CommonJS', 'from CommonJS', 'node', 'typescript/out/commonjs.cjs'],
  ['TypeBox', '2 to ada\nFST_BG_BAD_PAYLOAD', 'node', 'typescript/out/typebox.js'],
  ['Zod', '2 to ada\nFST_BG_BAD_PAYLOAD', 'node', 'typescript/out/zod.js'],
  ['JSON Schema', '2 to ada\nFST_BG_BAD_PAYLOAD', 'node', 'typescript/out/json-schema.js'],
  ['fastify-cli, autoload', 'hello ada 0', 'node', 'fastify-cli/drive.js'],
  ['NestJS', 'hello ada', 'node', 'nest/main.js'],
  ['tap', '# { total: 5, pass: 5 }', bin('tap'), '--disable-coverage', '--allow-empty-coverage', '--reporter=tap', 'tap/orders.test.js'],
  ['node:test', 'pass 1', 'node', '--test', '--test-reporter=spec', 'node-test/orders.test.js'],
  ['vitest', '2 passed', bin('vitest'), 'run', '--root', 'vitest', '--no-color'],
  ['jest', '2 passed', 'node', '--experimental-vm-modules', bin('jest'), '--rootDir', 'jest', '--no-color']
]

let failed = 0
const started = performance.now()
try {
  const { stdout } = await exec('npm', ['pack', '--json', '--loglevel=error', '--pack-destination', root], { cwd: resolve(here, '../..') })
  const tarball = join(root, JSON.parse(stdout.slice(stdout.indexOf('[')))[0].filename)
  cpSync(here, root, { recursive: true })
  const bare = join(root, 'bare')
  await Promise.all([exec('npm', [...install, tarball], { cwd: root }).then(() => exec('npm', [...install, tarball], { cwd: bare })), ...versions.map(pathOf)])
  seconds('packed and installed')

  const projects = ['app', 'commonjs', 'fastify-cli', 'jest', 'nest', 'node-test', 'tap', 'typescript', 'vitest', 'package.json']
  const jobs = [['TypeScript, nodenext', '', bin('tsc'), '-p', 'typescript'], ...judges(tarball)].map((job) => () => consume(root, 'npm', job))
  await inPairs(jobs)
  const runs = []
  for (const version of versions) {
    const folder = join(root, `on-${version}`)
    mkdirSync(folder)
    for (const project of projects) cpSync(join(root, project), join(folder, project), { recursive: true })
    runs.push(() => consume(bare, version, ['nothing but Fastify', "ran\nFST_BG_PEER_MISSING\n[]", 'node', 'main.js']))
    runs.push(...consumers.map((consumer) => () => consume(folder, version, consumer)))
  }
  await inPairs(runs)
  seconds(failed === 0 ? 'all consumers are content' : `${failed} consumers fail`)
} catch (error) {
  failed++
  console.error(error.stdout, error.stderr, error.message)
} finally {
  rmSync(root, { recursive: true, force: true })
}
process.exitCode = failed === 0 ? 0 : 1

/** Folder of a Node, by version. */
async function pathOf (version) {
  const { stdout } = await exec('npx', ['-y', '-p', `node@${version}`, '-c', 'node -p process.execPath'])
  return dirname(stdout.trim())
}

async function consume (cwd, version, [name, says, command, ...args]) {
  const env = { ...process.env, CI: 'true', NO_COLOR: '1', NODE_OPTIONS: '' }
  if (version !== 'npm') env.PATH = `${await pathOf(version)}:${env.PATH}`
  const { stdout, stderr, error } = await exec(command, args, { cwd, env, timeout: 120_000 }).catch((error) => ({ ...error, error }))
  const content = error === undefined && `${stdout}${stderr}`.includes(says)
  console.log(`${content ? 'ok    ' : 'FAILED'} ${version.padEnd(8)} ${name}`)
  if (content) return
  failed++
  console.log(`${stdout}${stderr}`.trimEnd().split('\n').slice(-40).join('\n'), error?.code ?? '')
}

async function inPairs (runs) {
  const take = async () => { for (let run = runs.shift(); run !== undefined; run = runs.shift()) await run() }
  await Promise.all([take(), take()])
}

function seconds (text) {
  console.log(`${text}: ${Math.round((performance.now() - started) / 1_000)} s`)
}
