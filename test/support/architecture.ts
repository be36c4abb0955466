/**
 * The checkers behind test/architecture.test.ts. Each is pure: source texts in, one line for each fault out, so that
 * the test can also show it failing on a few lines made up in memory.
 */
import { readFileSync, readdirSync } from 'node:fs'
import ts from 'typescript'

/** Path below lib/, like `jobs/pool.ts`, to source text. */
export type Sources = Map<string, string>

/**
 * Who may import whom. A name stands for a file of lib/ without its ending, or for all files of a folder;
 * `type name` allows `import type` alone, `*` is every file.
 */
export type Arrows = Record<string, readonly string[]>

export interface Manifest {
  main?: string
  types?: string
  exports?: unknown
  peerDependenciesMeta?: Record<string, { optional?: boolean }>
}

interface Import {
  line: number
  specifier: string
  /** True for `import type` and `export type`. `import { type X }` is false: it still loads the file. */
  typeOnly: boolean
  /** `import()`. */
  dynamic: boolean
}

export function readSources (folder: URL): Sources {
  const sources: Sources = new Map()
  for (const path of readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort()) {
    if (path.endsWith('.ts')) sources.set(path.replaceAll('\\', '/'), readFileSync(new URL(path, folder), 'utf8'))
  }
  return sources
}

export function forbiddenArrows (sources: Sources, arrows: Arrows): string[] {
  const faults: string[] = []
  for (const [file, text] of sources) {
    const row = Object.keys(arrows).find((name) => covers(name, file))
    if (row === undefined) {
      faults.push(`${file}: has no row in the table of arrows`)
      continue
    }
    for (const { line, specifier, typeOnly } of importsOf(file, text)) {
      const target = resolve(file, specifier)
      if (target === undefined) continue
      const allowed = (arrows[row] ?? []).some((name) => {
        return name.startsWith('type ') ? typeOnly && covers(name.slice(5), target) : covers(name, target)
      })
      if (!sources.has(target)) faults.push(`${file}:${line}: imports ${specifier}, which is not there`)
      else if (!allowed) faults.push(`${file}:${line}: ${row} → ${target}${typeOnly ? ' (type)' : ''} is not allowed`)
    }
  }
  return faults
}

/** Type imports count: who needs the other's types to be understood cannot be read alone. */
export function cycles (sources: Sources): string[] {
  const faults: string[] = []
  const done = new Set<string>()
  const visit = (file: string, path: string[]): void => {
    const start = path.indexOf(file)
    if (start !== -1) faults.push(`cycle: ${[...path.slice(start), file].join(' → ')}`)
    if (start !== -1 || done.has(file)) return
    for (const target of targetsOf(file, sources)) visit(target, [...path, file])
    done.add(file)
  }
  for (const file of sources.keys()) visit(file, [])
  return faults
}

export function longFiles (sources: Sources, max: number): string[] {
  const faults: string[] = []
  for (const [file, text] of sources) {
    const lines = text.replace(/\n$/, '').split('\n').length
    if (lines > max) faults.push(`${file}: ${lines} lines, more than ${max}`)
  }
  return faults
}

export function longFunctions (sources: Sources, max: number): string[] {
  const faults: string[] = []
  for (const [file, text] of sources) {
    const tree = parse(file, text)
    walk(tree, (node) => {
      if (!ts.isFunctionLike(node) || !('body' in node)) return
      const first = lineOf(tree, node.getStart(tree))
      const lines = lineOf(tree, node.getEnd()) - first + 1
      if (lines > max) faults.push(`${file}:${first}: ${nameOf(node)} has ${lines} lines, more than ${max}`)
    })
  }
  return faults
}

/** Imports of `packages`, other than types, outside of the files and folders in `allowed`. */
export function forbiddenPackages (sources: Sources, packages: string[], allowed: string[]): string[] {
  const faults: string[] = []
  for (const [file, text] of sources) {
    if (allowed.some((name) => covers(name, file))) continue
    for (const { line, specifier, typeOnly } of importsOf(file, text)) {
      if (!typeOnly && packages.some((name) => isPackage(specifier, name))) {
        faults.push(`${file}:${line}: imports ${specifier}, allowed in ${allowed.join(', ')} alone`)
      }
    }
  }
  return faults
}

const timers = ['setTimeout', 'setInterval', 'setImmediate', 'performance']
const timeMembers = ['Math.random', 'process.hrtime', 'AbortSignal.timeout']
const timeModules = /^(node:)?(timers(\/promises)?|perf_hooks)$/

/** Time and chance outside of the files in `allowed`. A Date made from a given instant is neither. */
export function timeAndChance (sources: Sources, allowed: string[]): string[] {
  const faults: string[] = []
  for (const [file, text] of sources) {
    if (allowed.some((name) => covers(name, file))) continue
    const tree = parse(file, text)
    const report = (node: ts.Node, what: string): void => {
      faults.push(`${file}:${lineOf(tree, node.getStart(tree))}: ${what}, allowed in ${allowed.join(', ')} alone`)
    }
    for (const { line, specifier, typeOnly } of importsOf(file, text)) {
      if (!typeOnly && timeModules.test(specifier)) {
        faults.push(`${file}:${line}: imports ${specifier}, allowed in ${allowed.join(', ')} alone`)
      }
    }
    walkValues(tree, (node) => {
      if (ts.isPropertyAccessExpression(node) && timeMembers.includes(node.getText(tree))) report(node, node.getText(tree))
      if (!ts.isIdentifier(node) || !isValue(node)) return
      if (timers.includes(node.text)) report(node, node.text)
      if (node.text === 'Date' && !isGivenDate(node)) report(node, node.parent.getText(tree).slice(0, 40))
    })
  }
  return faults
}

/** Entries of package.json that no source file stands behind. `exists` is asked for what is not built. */
export function entriesWithoutSource (manifest: Manifest, sources: Sources, exists: (path: string) => boolean): string[] {
  const faults: string[] = []
  for (const [path, entry] of entriesOf(manifest)) {
    const source = sourceOf(path)
    if (source === undefined ? !exists(path) : !sources.has(source)) {
      faults.push(`package.json: ${entry} names ${path}, but ${source ? `lib/${source}` : path} is not there`)
    }
  }
  return faults
}

/** Optional peers imported, be it for a type, by a file that `door` leads to: they may not be installed. Files in `lazy` may use `import()`. */
export function peersInCore (manifest: Manifest, sources: Sources, door: string, lazy: string[]): string[] {
  const peers = Object.entries(manifest.peerDependenciesMeta ?? {}).filter(([, { optional }]) => optional)
  const faults: string[] = []
  const core = new Set<string>(sources.has(door) ? [door] : [])
  for (const file of core) {
    for (const target of targetsOf(file, sources)) core.add(target)
    for (const { line, specifier, dynamic } of importsOf(file, sources.get(file) ?? '')) {
      if (dynamic && lazy.includes(file)) continue
      if (peers.some(([name]) => isPackage(specifier, name))) {
        faults.push(`${file}:${line}: imports ${specifier}, an optional peer, and ${door} leads here`)
      }
    }
  }
  return faults
}

/** `jobs` covers `jobs.ts` and all of `jobs/`. */
function covers (name: string, file: string): boolean {
  return name === '*' || file === `${name}.ts` || file.startsWith(`${name}/`)
}

function isPackage (specifier: string, name: string): boolean {
  return specifier === name || specifier.startsWith(`${name}/`)
}

function resolve (file: string, specifier: string): string | undefined {
  // The host is never asked for: URL only does the `..` here.
  return specifier.startsWith('.') ? new URL(specifier, `file:///${file}`).pathname.slice(1) : undefined
}

function targetsOf (file: string, sources: Sources): string[] {
  const targets = importsOf(file, sources.get(file) ?? '').map(({ specifier }) => resolve(file, specifier))
  return targets.filter((target): target is string => target !== undefined && sources.has(target))
}

function importsOf (file: string, text: string): Import[] {
  const tree = parse(file, text)
  const imports: Import[] = []
  const add = (node: ts.Node, specifier: ts.Node | undefined, typeOnly: boolean, dynamic = false): void => {
    if (specifier === undefined || !ts.isStringLiteralLike(specifier)) return
    imports.push({ line: lineOf(tree, node.getStart(tree)), specifier: specifier.text, typeOnly, dynamic })
  }
  walk(tree, (node) => {
    if (ts.isImportDeclaration(node)) {
      add(node, node.moduleSpecifier, node.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword)
    } else if (ts.isExportDeclaration(node)) add(node, node.moduleSpecifier, node.isTypeOnly)
    else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) add(node, node.argument.literal, true)
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node, node.arguments[0], false, true)
    }
  })
  return imports
}

function entriesOf (manifest: Manifest): [path: string, entry: string][] {
  const entries: [string, string][] = []
  const visit = (value: unknown, entry: string): void => {
    if (typeof value === 'string') entries.push([value, entry])
    else if (typeof value === 'object' && value !== null) {
      for (const [key, inner] of Object.entries(value)) visit(inner, `${entry}[${key}]`)
    }
  }
  visit(manifest.exports, 'exports')
  visit(manifest.main, 'main')
  visit(manifest.types, 'types')
  return entries
}

/** `./dist/a.js` and `./dist/a.d.ts` are built from `a.ts`. */
function sourceOf (path: string): string | undefined {
  const name = /^\.\/dist\/(.+?)(\.d\.ts|\.js)$/.exec(path)?.[1]
  return name === undefined ? undefined : `${name}.ts`
}

const trees = new Map<string, ts.SourceFile>()

function parse (file: string, text: string): ts.SourceFile {
  const key = `${file}\n${text}`
  const tree = trees.get(key) ?? ts.createSourceFile(file, text, ts.ScriptTarget.ES2023, true)
  trees.set(key, tree)
  return tree
}

function walk (node: ts.Node, visit: (node: ts.Node) => void): void {
  visit(node)
  ts.forEachChild(node, (child) => { walk(child, visit) })
}

/** Leaves out types and imports. */
function walkValues (node: ts.Node, visit: (node: ts.Node) => void): void {
  if (ts.isTypeNode(node) || ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) return
  visit(node)
  ts.forEachChild(node, (child) => { walkValues(child, visit) })
}

/** True for a variable's use, and for a member of globalThis; false for the name of a property or a declaration. */
function isValue (node: ts.Identifier): boolean {
  const parent = node.parent
  if (ts.isPropertyAccessExpression(parent) && parent.name === node) return parent.expression.getText() === 'globalThis'
  return !('name' in parent && parent.name === node) || ts.isShorthandPropertyAssignment(parent)
}

/** `new Date(instant)`, `Date.parse(text)` and `instanceof Date` read no clock. */
function isGivenDate (node: ts.Identifier): boolean {
  const parent = node.parent
  if (ts.isNewExpression(parent)) return parent.expression === node && (parent.arguments?.length ?? 0) > 0
  if (ts.isPropertyAccessExpression(parent)) return parent.name.text === 'parse' || parent.name.text === 'UTC'
  return ts.isBinaryExpression(parent) && parent.operatorToken.kind === ts.SyntaxKind.InstanceOfKeyword
}

function nameOf (node: ts.SignatureDeclaration): string {
  if (ts.isConstructorDeclaration(node)) return 'constructor'
  const name = node.name ?? (ts.isVariableDeclaration(node.parent) ? node.parent.name : undefined)
  return name?.getText() ?? 'a function without a name'
}

function lineOf (tree: ts.SourceFile, position: number): number {
  return tree.getLineAndCharacterOfPosition(position).line + 1
}
