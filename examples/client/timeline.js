// The demo's output: what happened, when and where, in plain columns, and the checks that must hold.

import { performance } from 'node:perf_hooks'

export function createTimeline (print = console.log) {
  let start = 0
  let checks = 0

  function line (who, what) {
    print(`${String(Math.round(performance.now() - start)).padStart(6)} ms  ${who.padEnd(8)} ${what}`)
  }

  return {
    line,
    get checks () { return checks },

    /** A new part, its clock at zero. */
    part (title) {
      print(`\n${title}\n${'-'.repeat(title.length)}`)
      start = performance.now()
    },

    /** Goes on only if it holds; `seen` is what there was instead. */
    check (holds, what, seen) {
      if (!holds) throw new Error(`expected: ${what}${seen === undefined ? '' : `; seen: ${JSON.stringify(seen)}`}`)
      checks++
      line('check', what)
    },

    table (rows) {
      const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => String(row[column]).length)))
      for (const row of rows) {
        const cells = row.map((cell, column) => String(cell).padEnd(widths[column]))
        print(`           ${cells.join('  ').trimEnd()}`)
      }
    }
  }
}
