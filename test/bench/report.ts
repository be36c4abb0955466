/** Numbers as text. */
import { median } from './measure.ts'
import type { Goal } from './goals.ts'
import type { Group } from './plan.ts'
import type { Share } from './profile.ts'
import type { Row } from './rounds.ts'

export interface Range {
  readonly median: number
  readonly min: number
  readonly max: number
}

export interface SummarizedRow extends Row {
  /** By the metric's key. */
  readonly values: Readonly<Record<string, Range>>
}

/** The median of the rounds' ratios: what changed the machine's pace between the rounds is not in it. */
export function ratio (row: Row | undefined, over: Row | undefined, key = 'cpu'): number | undefined {
  if (row === undefined || over === undefined) return undefined
  const ratios = row.results.slice(0, over.results.length).map((result, round) => (result[key] as number) / (over.results[round]?.[key] as number))
  return ratios.length === 0 ? undefined : median(ratios)
}

/** Adds the median of each metric, and the lowest and highest round. */
export function summarize (group: Group, rows: readonly Row[]): SummarizedRow[] {
  return rows.map((row) => {
    const values: Record<string, Range> = {}
    for (const { key } of group.metrics) {
      const numbers = row.results.map((result) => result[key] as number)
      if (numbers.length > 0) values[key] = { median: median(numbers), min: Math.min(...numbers), max: Math.max(...numbers) }
    }
    return { ...row, values }
  })
}

export function groupTable (group: Group, rows: readonly SummarizedRow[]): string {
  const base = rows.find(({ name }) => name === group.base)
  const head = [countRounds(group, rows), ...group.metrics.map(({ label }) => label), ...(group.base === undefined ? [] : [`× ${group.base}`])]
  const lines = rows.map((row) => [
    row.name,
    ...group.metrics.map(({ key, digits }) => range(row.values[key], digits)),
    // Of the same CPU second: how many times as much as the base gets done.
    ...(group.base === undefined ? [] : [ratio(base, row)?.toFixed(2) ?? '–']),
    ...(row.fault === undefined ? [] : [row.fault])
  ])
  return `\n${group.title} (${group.id})\n${table([head, ...lines])}${group.note === undefined ? '' : `\n  ${group.note}`}`
}

/** Says so when time or a fault took some away. */
function countRounds (group: Group, rows: readonly SummarizedRow[]): string {
  const fewest = Math.min(...rows.map(({ results }) => results.length))
  return fewest === group.rounds ? `${fewest} rounds` : `${fewest} of ${group.rounds} rounds`
}

export function goalsTable (goals: readonly Goal[]): string {
  const lines = goals.map(({ text, wanted, measured, verdict }) => [text, wanted, measured === undefined ? '–' : significant(measured), verdict])
  return `\nGoals\n${table([['goal', 'wanted', 'measured', ''], ...lines])}`
}

export function profileTable ({ id, profiled }: Group, shares: readonly Share[]): string {
  return `\nProfile of ${id}, ${profiled}\n${table(shares.map(({ place, share }) => [`${(share * 100).toFixed(1).padStart(5)} %  ${place}`]))}`
}

function significant (number: number): string {
  return number >= 100 ? number.toLocaleString('en', { maximumFractionDigits: 0 }) : number.toFixed(number >= 10 ? 1 : 3)
}

function range (value: Range | undefined, digits: number): string {
  if (value === undefined) return '–'
  const [middle, min, max] = [value.median, value.min, value.max].map((number) => number.toFixed(digits))
  return min === max ? middle as string : `${middle} (${min}–${max})`
}

function table (lines: readonly string[][]): string {
  const widths = (lines[0] as string[]).map((_, at) => Math.max(...lines.map((cells) => (cells[at] ?? '').length)))
  const text = (cells: string[]): string => cells.map((cell, at) => at === 0 ? cell.padEnd(widths[0] as number) : cell.padStart(widths[at] ?? 0)).join('  ').trimEnd()
  return lines.map((cells) => `  ${text(cells)}`).join('\n')
}
