/** Who owns jobs: a process, told apart from any other that had or will have its number. */
import { readFileSync, readlinkSync } from 'node:fs'

export interface Identity {
  /** Changes when the machine starts; empty where that cannot be known. */
  readonly boot: string
  /** Process numbers mean something within it: containers have spaces of their own. */
  readonly space: string
  readonly pid: number
  /** When the process started; empty where that cannot be known. */
  readonly began: string
}

export function thisProcess (): Identity {
  return { boot: bootId(), space: pidSpace(), pid: process.pid, began: startOf(process.pid) }
}

/** Whether the other is gone for sure. One that cannot be seen from here may live. */
export function isGone (other: Identity, self: Identity): boolean {
  if (other.boot === '' || self.boot === '') return false
  if (other.boot !== self.boot) return true
  if (other.space !== self.space) return false
  try {
    process.kill(other.pid, 0)
  } catch (error) {
    return (error as { code?: string }).code === 'ESRCH'
  }
  const began = startOf(other.pid)
  return began !== '' && other.began !== '' && began !== other.began
}

function bootId (): string {
  return attempt(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim())
}

function pidSpace (): string {
  return attempt(() => readlinkSync('/proc/self/ns/pid'))
}

/** Clock ticks since the boot. The name before it, in parentheses, may hold anything. */
function startOf (pid: number): string {
  return attempt(() => {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? ''
  })
}

function attempt (read: () => string): string {
  try {
    return read()
  } catch {
    return ''
  }
}
