/** lib/ and the proofs as plain JavaScript in a folder of their own, where they can be broken without harm. */
import { spawn } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import type { Mutant } from './mutants.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))

export interface Copies {
  /** Path of an unbroken copy. */
  readonly sound: string
  /** Answers the path of a copy with the mutant's edits; throws when the text of one is not there. */
  broken (mutant: Mutant): string
  remove (): void
}

export function compile (): Copies {
  const base = mkdtempSync(join(tmpdir(), 'fbt-mutants-'))
  symlinkSync(join(root, 'node_modules'), join(base, 'node_modules'), 'dir')
  const sound = join(base, 'sound')
  for (const folder of ['lib', 'test/proof', 'test/support']) {
    for (const file of readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })) {
      if (file.endsWith('.ts') && !file.endsWith('.test.ts')) emit(join(sound, folder, file), readFileSync(join(root, folder, file), 'utf8'))
    }
  }
  writeFileSync(join(sound, 'package.json'), '{ "type": "module" }')
  let made = 0
  return {
    sound,
    broken ({ edits }) {
      const copy = join(base, `broken-${++made}`)
      cpSync(sound, copy, { recursive: true })
      const sources = new Map<string, string>()
      for (const [file, from, to] of edits) {
        const source = sources.get(file) ?? readFileSync(join(root, 'lib', file), 'utf8')
        if (!source.includes(from)) throw new Error(`lib/${file} has no text ${JSON.stringify(from)}`)
        sources.set(file, source.replaceAll(from, to))
      }
      for (const [file, source] of sources) emit(join(copy, 'lib', file), source)
      return copy
    },
    remove () { rmSync(base, { recursive: true, force: true }) }
  }
}

function emit (path: string, source: string): void {
  const { outputText } = ts.transpileModule(source, {
    compilerOptions: { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true, rewriteRelativeImportExtensions: true }
  })
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path.replace(/\.ts$/, '.js'), outputText)
}

/** Runs short proofs of a copy in a process of their own, for a minute at most. */
export function prove (copy: string, ...proofs: string[]): Promise<{ code: number | null, said: string }> {
  // Without tap's own settings: the copies are not what is covered.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(NODE_OPTIONS|NODE_V8_COVERAGE|TAP|_TAPJS)/.test(name)))
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [join(copy, 'test/proof/short.js'), ...proofs], { env, timeout: 60_000, stdio: ['ignore', 'pipe', 'pipe'] })
    let said = ''
    child.stdout.on('data', (chunk) => { said += String(chunk) })
    child.stderr.on('data', (chunk) => { said += String(chunk) })
    child.on('close', (code) => { resolve({ code, said }) })
  })
}
