/**
 * The checker of docstrings: what our users see of the package, its declarations, says what it is, in which unit, what
 * holds when it is left out, and what is thrown. Pure: declaration texts in, one line for each fault out.
 */
import { posix } from 'node:path'
import ts from 'typescript'
import type { Sources } from './architecture.ts'

/** Words that give a number its meaning. */
const UNIT = /\b(ms|bytes?|epoch|jobs?|attempts?|threads?|starts|letters|times|per second|from \S+ to|\S+ to \S+|counts?)\b/i

/** `entries`: the declaration files that package.json exports, below the folder of `sources`. */
export function docFaults (sources: Sources, entries: readonly string[]): string[] {
  const faults = new Set<string>()
  const seen = new Set<ts.Node>()
  for (const entry of entries) {
    for (const [name, node] of exportsOf(entry, sources)) {
      if (node === undefined) faults.add(`${entry}: exports ${name}, which is not found`)
      if (node === undefined || seen.has(node)) continue
      seen.add(node)
      for (const fault of faultsOf(name, node)) faults.add(fault)
    }
  }
  return [...faults]
}

function * faultsOf (name: string, node: ts.Node): Generator<string> {
  const text = docOf(node)
  if (text === '') yield `${name}: no docstring`
  if (ts.isFunctionDeclaration(node) && !/FST_BG_|never throws/i.test(text)) yield `${name}: does not say what it throws`
  if (!ts.isInterfaceDeclaration(node) && !ts.isClassDeclaration(node)) return
  const options = name.endsWith('Options')
  for (const member of node.members) {
    const key = member.name?.getText()
    if (key === undefined || key.startsWith('[') || ts.isPrivateIdentifier(member.name as ts.Node) || isFixed(member)) continue
    const said = docOf(member) || sharedDoc(node, key)
    const where = `${name}.${key}`
    // What a plain field of a record means, its name says; a method, an option and a number need words.
    const field = ts.isPropertySignature(member) && !options
    const counts = ts.isPropertySignature(member) && /\bnumber\b/.test(member.type?.getText().replaceAll(/\w+Ms\??: number/g, '') ?? '') && !key.endsWith('Ms')
    if (said === '' && !field) yield `${where}: no docstring`
    else if (counts && !UNIT.test(said) && !(field && UNIT.test(text))) yield `${where}: a number without a unit`
    else if (options && (member as ts.PropertySignature).questionToken !== undefined && !/@default|without/i.test(said)) yield `${where}: does not say what holds without it`
  }
}

/** `name` and `code` of an error: their values say it. */
function isFixed (member: ts.Node): boolean {
  return ts.isPropertyDeclaration(member) && ['name', 'code'].includes(member.name.getText())
}

/** Overloads are told once. */
function sharedDoc (node: ts.InterfaceDeclaration | ts.ClassDeclaration, key: string): string {
  const members: readonly ts.Node[] = node.members
  return members.filter((member) => (member as ts.NamedDeclaration).name?.getText() === key).map(docOf).find((text) => text !== '') ?? ''
}

function docOf (node: ts.Node): string {
  const holder = ts.isVariableDeclaration(node) ? node.parent.parent : node
  return (holder as { jsDoc?: ts.JSDoc[] }).jsDoc?.map((doc) => doc.getText()).join('\n') ?? ''
}

/** Names that a file exports, and their declarations, over whatever detour. */
function exportsOf (file: string, sources: Sources): Map<string, ts.Node | undefined> {
  const found = new Map<string, ts.Node | undefined>()
  const tree = parse(file, sources)
  for (const statement of tree?.statements ?? []) {
    if (ts.isExportDeclaration(statement) && statement.exportClause !== undefined && ts.isNamedExports(statement.exportClause)) {
      const from = statement.moduleSpecifier as ts.StringLiteral | undefined
      for (const { name, propertyName } of statement.exportClause.elements) {
        const inner = (propertyName ?? name).text
        found.set(name.text, from === undefined ? declared(tree, inner) : exportsOf(target(file, from.text), sources).get(inner))
      }
    } else if (ts.canHaveModifiers(statement) && ts.getModifiers(statement)?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)) {
      for (const node of declarations(statement)) if (node.name !== undefined) found.set(node.name.getText(), node)
    }
  }
  return found
}

function declared (tree: ts.SourceFile | undefined, name: string): ts.Node | undefined {
  return tree?.statements.flatMap(declarations).find((node) => node.name?.getText() === name)
}

function declarations (statement: ts.Statement): ts.NamedDeclaration[] {
  return ts.isVariableStatement(statement) ? [...statement.declarationList.declarations] : [statement as ts.Statement & ts.NamedDeclaration]
}

/** As TypeScript emits it: `./job.ts` or `./job.js` is declared in `job.d.ts`. */
function target (file: string, specifier: string): string {
  return posix.join(posix.dirname(file), specifier).replace(/\.[jt]s$/, '.d.ts')
}

const trees = new Map<string, ts.SourceFile>()

function parse (file: string, sources: Sources): ts.SourceFile | undefined {
  const text = sources.get(file)
  if (text === undefined) return undefined
  const tree = trees.get(text) ?? ts.createSourceFile(file, text, ts.ScriptTarget.ES2023, true)
  trees.set(text, tree)
  return tree
}
