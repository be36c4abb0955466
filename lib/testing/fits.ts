/** Whether a value has all that a pattern names: objects may have more keys, arrays not more items. */
export function fits (value: unknown, pattern: unknown): boolean {
  if (typeof pattern !== 'object' || pattern === null) return Object.is(value, pattern)
  if (typeof value !== 'object' || value === null || Array.isArray(value) !== Array.isArray(pattern)) return false
  if (Array.isArray(pattern) && pattern.length !== (value as unknown[]).length) return false
  return Object.entries(pattern).every(([key, wanted]) => {
    return Object.hasOwn(value, key) && fits((value as Record<string, unknown>)[key], wanted)
  })
}
