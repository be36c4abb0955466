/** Waiting for what lives by real time: servers, other processes. */

export function realTime (ms: number): Promise<void> {
  return new Promise((resolve) => { setTimeout(resolve, ms) })
}

/** Looks again every 20 ms, for so many ms at most. */
export async function eventually (holds: () => unknown, what: string, most = 30_000): Promise<void> {
  const end = performance.now() + most
  while (!await holds()) {
    if (performance.now() > end) throw new Error(`waited in vain for ${what}`)
    await realTime(20)
  }
}
