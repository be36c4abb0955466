/** The house keeps its rooms apart: this table is the README's map. Change the two together. */
import { existsSync, readFileSync } from 'node:fs'
import t from 'tap'
import { docFaults } from './support/docstrings.ts'
import {
  cycles, entriesWithoutSource, forbiddenArrows, forbiddenPackages, longFiles, longFunctions, peersInCore, readSources,
  timeAndChance, type Arrows, type Manifest, type Sources
} from './support/architecture.ts'

const words = [
  'job', 'job-options', 'route-options', 'backend', 'capabilities', 'errors', 'describe', 'clock', 'deadlines', 'heap', 'id', 'json', 'check', 'peer', 'redact', 'schedule',
  'events', 'log', 'throttle', 'propagator'
]

const arrows: Arrows = {
  // The words import each other alone.
  ...Object.fromEntries(words.map((word) => [word, words])),
  observe: words,
  options: words,
  jobs: [...words, 'type options', 'observe', 'jobs'],
  http: [...words, 'type options', 'observe', 'jobs', 'http'],
  backends: [...words, 'backends'],
  testing: [...words, 'type jobs', 'backends/memory', 'testing'],
  // Subpaths: built on the public door.
  metrics: [...words, 'metrics', 'type index'],
  'bull-board': [...words, 'bull-board', 'http/access', 'type background', 'type options'],
  tracing: [...words, 'tracing', 'type index'],
  background: [...words, 'options', 'observe', 'jobs'],
  plugin: ['*'],
  index: ['plugin', 'options', 'background', ...words, 'type jobs', 'type http', 'backends/memory']
}

const maxFileLines = 300
const maxFunctionLines = 60
const fastify = ['fastify', 'fastify-plugin']

const root = new URL('../', import.meta.url)
const lib = readSources(new URL('lib/', root))
const manifest = JSON.parse(readFileSync(new URL('package.json', root), 'utf8')) as Manifest

/** A lib/ made up for one check. */
function files (texts: Record<string, string>): Sources {
  return new Map(Object.entries(texts))
}

function lines (count: number): string {
  return 'f()\n'.repeat(count)
}

t.test('the rooms import only what the table allows', async (t) => {
  const made = files({
    'job.ts': '',
    'options.ts': '',
    'jobs/pool.ts': "import type { O } from '../options.ts'\nimport { o } from '../options.ts'",
    'http/gate.ts': "import { pool } from '../jobs/pool.ts'\nimport type { B } from '../backends/memory.ts'",
    'backends/memory.ts': "export * from '../job.ts'\nconst x = await import('../jobs/pool.ts')",
    'utils.ts': '',
    'plugin.ts': "import './http/gate.ts'\nimport './gone.ts'",
    'index.ts': "import { type Pool } from './jobs/pool.ts'\nlet y: import('./http/gate.ts').Gate"
  })
  t.strictSame(forbiddenArrows(made, arrows), [
    'jobs/pool.ts:2: jobs → options.ts is not allowed',
    'http/gate.ts:2: http → backends/memory.ts (type) is not allowed',
    'backends/memory.ts:2: backends → jobs/pool.ts is not allowed',
    'utils.ts: has no row in the table of arrows',
    'plugin.ts:2: imports ./gone.ts, which is not there',
    'index.ts:1: index → jobs/pool.ts is not allowed'
  ])
  t.strictSame(forbiddenArrows(lib, arrows), [])
})

t.test('no file imports itself, over whatever detour', async (t) => {
  const made = files({
    'a.ts': "import './jobs/b.ts'",
    'jobs/b.ts': "import type { C } from './c.ts'",
    'jobs/c.ts': "export { a } from '../a.ts'",
    'd.ts': "import './a.ts'"
  })
  t.strictSame(cycles(made), ['cycle: a.ts → jobs/b.ts → jobs/c.ts → a.ts'])
  t.strictSame(cycles(files({ 'a.ts': "import './b.ts'\nimport './c.ts'", 'b.ts': "import './c.ts'", 'c.ts': '' })), [])
  t.strictSame(cycles(lib), [])
})

t.test('files are short', async (t) => {
  const made = files({ 'fits.ts': lines(300), 'long.ts': lines(301) })
  t.strictSame(longFiles(made, maxFileLines), ['long.ts: 301 lines, more than 300'])
  t.strictSame(longFiles(lib, maxFileLines), [])
})

t.test('functions are short', async (t) => {
  const made = files({
    'fits.ts': `/** One\n * comment. */\nfunction fits () {\n${lines(58)}}`,
    'long.ts': `function long () {\n${lines(59)}}\nconst arrow = () => {\n${lines(60)}}`,
    'class.ts': `class C {\n  constructor () {\n${lines(60)}}\n  get x () {\n${lines(60)}}\n}\ng(function () {\n${lines(60)}})`
  })
  t.strictSame(longFunctions(made, maxFunctionLines), [
    'long.ts:1: long has 61 lines, more than 60',
    'long.ts:62: arrow has 62 lines, more than 60',
    'class.ts:2: constructor has 62 lines, more than 60',
    'class.ts:64: x has 62 lines, more than 60',
    'class.ts:127: a function without a name has 62 lines, more than 60'
  ])
  t.strictSame(longFunctions(lib, maxFunctionLines), [])
})

t.test('Fastify is met in plugins and http/ alone, its types anywhere', async (t) => {
  const made = files({
    'job.ts': "import type { FastifyInstance } from 'fastify'",
    'jobs/add.ts': "import { type FastifyInstance } from 'fastify'\nimport fp from 'fastify-plugin'",
    'errors.ts': "import createError from '@fastify/error'",
    'http/routes.ts': "import fastify from 'fastify'",
    'plugin.ts': "import fp from 'fastify-plugin'"
  })
  t.strictSame(forbiddenPackages(made, fastify, ['plugin', 'http']), [
    'jobs/add.ts:1: imports fastify, allowed in plugin, http alone',
    'jobs/add.ts:2: imports fastify-plugin, allowed in plugin, http alone'
  ])
  t.strictSame(forbiddenPackages(lib, fastify, ['plugin', 'http', 'metrics', 'tracing']), [])
})

t.test('p-queue is met in jobs/pool.ts alone', async (t) => {
  const made = files({ 'jobs/pool.ts': "import PQueue from 'p-queue'", 'jobs/add.ts': "export * from 'p-queue'" })
  t.strictSame(forbiddenPackages(made, ['p-queue'], ['jobs/pool']), [
    'jobs/add.ts:1: imports p-queue, allowed in jobs/pool alone'
  ])
  t.strictSame(forbiddenPackages(lib, ['p-queue'], ['jobs/pool']), [])
})

t.test('time and chance come from clock.ts', async (t) => {
  const made = files({
    'clock.ts': 'Date.now(); setTimeout(f, 1); Math.random()',
    'bad.ts': [
      'Date.now()', 'new Date()', 'const D = Date', 'setTimeout(f, 1)', 'run(setInterval)', 'globalThis.setImmediate(f)',
      'Math.random()', 'performance.now()', 'const o = { setTimeout }', "import { setTimeout as sleep } from 'node:timers/promises'",
      'AbortSignal.timeout(5)', 'process.hrtime.bigint()'
    ].join('\n'),
    'good.ts': [
      'new Date(at).toISOString()', 'Date.parse(text)', 'x instanceof Date', 'let d: Date | undefined',
      'let timer: ReturnType<typeof setTimeout>', 'clock.setTimeout(f, 1)', 'const o = { Date: 1, performance: 2 }',
      "import type { Performance } from 'node:perf_hooks'", 'interface C { setTimeout (f: () => void): void }'
    ].join('\n')
  })
  t.strictSame(timeAndChance(made, ['clock']), [
    'bad.ts:10: imports node:timers/promises, allowed in clock alone',
    'bad.ts:1: Date.now, allowed in clock alone',
    'bad.ts:2: new Date(), allowed in clock alone',
    'bad.ts:3: D = Date, allowed in clock alone',
    'bad.ts:4: setTimeout, allowed in clock alone',
    'bad.ts:5: setInterval, allowed in clock alone',
    'bad.ts:6: setImmediate, allowed in clock alone',
    'bad.ts:7: Math.random, allowed in clock alone',
    'bad.ts:8: performance, allowed in clock alone',
    'bad.ts:9: setTimeout, allowed in clock alone',
    'bad.ts:11: AbortSignal.timeout, allowed in clock alone',
    'bad.ts:12: process.hrtime, allowed in clock alone'
  ])
  t.strictSame(timeAndChance(lib, ['clock', 'testing/clock']), [])
})

t.test('every entry of package.json has a source', async (t) => {
  const made: Manifest = {
    main: './dist/index.js',
    exports: {
      '.': { types: './dist/index.d.ts', default: './dist/index.js' },
      './sqlite': { types: './dist/backends/sqlite.d.ts', default: './dist/backends/sqlit.js' },
      './package.json': './package.json',
      './extra': './extra.json'
    }
  }
  const sources = files({ 'index.ts': '', 'backends/sqlite.ts': '' })
  t.strictSame(entriesWithoutSource(made, sources, (path) => path === './package.json'), [
    'package.json: exports[./sqlite][default] names ./dist/backends/sqlit.js, but lib/backends/sqlit.ts is not there',
    'package.json: exports[./extra] names ./extra.json, but ./extra.json is not there'
  ])
  t.strictSame(entriesWithoutSource(manifest, lib, (path) => existsSync(new URL(path, root))), [])
})

t.test('the core imports no optional peer, not even for a type', async (t) => {
  const made: Manifest = { peerDependenciesMeta: { bullmq: { optional: true }, fastify: { optional: false } } }
  const sources = files({
    'index.ts': "import './plugin.ts'",
    'plugin.ts': "import type { FastifyInstance } from 'fastify'\nexport type { Job } from 'bullmq/types'\nimport './core.ts'",
    'core.ts': "await import('bullmq')",
    'backends/bullmq.ts': "import { Queue } from 'bullmq'"
  })
  t.strictSame(peersInCore(made, sources, 'index.ts', []), [
    'plugin.ts:2: imports bullmq/types, an optional peer, and index.ts leads here',
    'core.ts:1: imports bullmq, an optional peer, and index.ts leads here'
  ])
  // A file may load one when it is needed, and no earlier.
  const lazy = files({ 'index.ts': "import './core.ts'", 'core.ts': "import type { Job } from 'bullmq'\nf(() => import('bullmq'))" })
  t.strictSame(peersInCore(made, lazy, 'index.ts', ['core.ts']), ['core.ts:1: imports bullmq, an optional peer, and index.ts leads here'])
  t.strictSame(peersInCore(manifest, lib, 'index.ts', ['jobs/threads.ts', 'jobs/cron.ts']), [])
})

t.test('every name that users see is documented, with units, defaults and codes', async (t) => {
  const made = files({
    'index.d.ts': "export { a, type MyOptions, type gone } from './b.ts'\nexport { C } from './c.js'\nexport interface Told {}",
    'b.d.ts': '/** Does. */\nexport declare function a(): void;\nexport interface MyOptions {\n  x?: number;\n  /** Ms. */\n  y?: number;\n  /** Much. @default 5 */\n  z?: number;\n}',
    'c.d.ts': '/** A class. */\nexport declare class C {\n  #p;\n  /** Told once. */\n  m(a: string): void;\n  m(): void;\n  n(): void;\n}'
  })
  t.strictSame(docFaults(made, ['index.d.ts']), [
    'a: does not say what it throws',
    'MyOptions: no docstring',
    'MyOptions.x: no docstring',
    'MyOptions.y: does not say what holds without it',
    'MyOptions.z: a number without a unit',
    'index.d.ts: exports gone, which is not found',
    'C.n: no docstring',
    'Told: no docstring'
  ])
  const declarations = readSources(new URL('dist/', root))
  const doors = Object.values(manifest.exports as Record<string, string | { types: string }>).flatMap((door) => typeof door === 'string' ? [] : [door.types.replace('./dist/', '')])
  t.ok(doors.length >= 4)
  t.strictSame(docFaults(declarations, doors), [])
})
