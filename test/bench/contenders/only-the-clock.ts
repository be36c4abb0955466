import type { Done, Subject } from './index.ts'

/** No queue at all: turns of one millisecond of counting. What it shows beyond that is the machine's own doing. */
export function create (done: Done): Subject {
  let todo = 0
  function turn (): void {
    const began = performance.now()
    while (todo > 0 && performance.now() - began < 1) {
      todo--
      for (let i = 0; i < 10; i++) performance.now() // takes as long as a job
      done(todo)
    }
    if (todo > 0) setImmediate(turn)
  }
  return {
    fill (n) { todo = n },
    resume () { setImmediate(turn) }
  }
}
