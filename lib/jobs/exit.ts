/**
 * The last moment of a process that does not wait for its drain: `process.exit`, a second signal, a supervisor that has
 * lost its patience, an exception nobody caught. One listener for all applications of the process.
 */
const open = new Set<() => void>()

function speak (): void {
  for (const say of open) say()
}

/** Calls `say` when the process ends, synchronously: nothing that waits comes to its end then. Answers how to stop. */
export function atExit (say: () => void): () => void {
  // First of all listeners: pino writes out what it holds back in one of its own.
  if (open.size === 0) process.prependListener('exit', speak)
  open.add(say)
  return () => { if (open.delete(say) && open.size === 0) process.off('exit', speak) }
}
