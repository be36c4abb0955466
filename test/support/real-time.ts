/** Waiting for what lives by real time: servers, other processes. */

export function realTime (ms: number): Promise<void> {
  return new Promise((resolve) => { setTimeout(resolve, ms) })
}

/** Looks again every 20 ms, for at most ten seconds. */
export async function eventually (holds: () => unknown, what: string): Promise<void> {
  for (let tries = 0; !await holds(); tries++) {
    if (tries === 500) throw new Error(`waited in vain for ${what}`)
    await realTime(20)
  }
}
