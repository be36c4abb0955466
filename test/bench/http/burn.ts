/** CPU work: here, and as a worker file in a thread. */
export function burn (ms: number): void {
  const end = performance.now() + ms
  while (performance.now() < end);
}

export default burn
