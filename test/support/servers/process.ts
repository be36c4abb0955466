/**
 * A server process of the tests' own. It cannot outlive them: a shell stands guard over it, and ends it when the pipe
 * to the shell closes, however this process died.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, chownSync, rmSync } from 'node:fs'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/**
 * First line of its output: the server's pid. A stopped process hears no other signal before SIGCONT. Where nobody said
 * that the server is to end, nobody is left to remove its files either.
 */
const GUARD = 'signal=$1 folder=$2; shift 2; "$@" >/dev/null 2>&1 & echo $!; read -r _; told=$?; ' +
  'kill -CONT $!; kill -$signal $!; wait; [ $told = 0 ] || rm -rf "$folder"'
/** Of the tests' own servers; no log may show it. */
export const PASSWORD = 'sesame-open'
/** For whom a database that refuses root is run, when the tests are run by root. */
const NOBODY = 65_534

export interface Program {
  /** Of the server on this port, with its files in this folder. */
  command: (port: number, folder: string) => string[]
  /** Ends it at once, together with its children. */
  signal: 'KILL' | 'QUIT'
  /** Once, before the first start. */
  prepare?: (folder: string, asNobody: AsNobody) => Promise<void>
  /** Whether it does more than listen on its port. */
  isReady?: (folder: string) => boolean
  /** Does not run as root. */
  refusesRoot?: true
}

export type AsNobody = { uid: number, gid: number } | undefined

export class OwnServer {
  readonly port: number
  readonly #program: Program
  readonly #folder: string
  readonly #asNobody: AsNobody
  #guard: ChildProcess | undefined
  #pid = 0

  private constructor (program: Program, port: number, folder: string, asNobody: AsNobody) {
    this.port = port
    this.#program = program
    this.#folder = folder
    this.#asNobody = asNobody
  }

  static async create (program: Program): Promise<OwnServer> {
    const folder = mkdtempSync(join(tmpdir(), 'bg-server-'))
    const asNobody = program.refusesRoot === true && process.getuid?.() === 0 ? { uid: NOBODY, gid: NOBODY } : undefined
    if (asNobody !== undefined) chownSync(folder, NOBODY, NOBODY)
    await program.prepare?.(folder, asNobody)
    const server = new OwnServer(program, await freePort(), folder, asNobody)
    await server.start()
    return server
  }

  /** With the files and on the port it had before. */
  async start (): Promise<void> {
    const args = ['-c', GUARD, 'sh', this.#program.signal, this.#folder, ...this.#program.command(this.port, this.#folder)]
    // In a session of its own: what is sent to all processes of the tests does not end the guard before its server.
    const guard = spawn('sh', args, { stdio: ['pipe', 'pipe', 'ignore'], detached: true, ...this.#asNobody })
    this.#guard = guard
    const [line] = await once(guard.stdout as NodeJS.ReadableStream, 'data') as [Buffer]
    this.#pid = Number(line.toString())
    // Nothing of it keeps the tests alive, or looks like a leak of theirs.
    guard.unref()
    for (const pipe of [guard.stdin, guard.stdout]) (pipe as unknown as Socket).unref()
    for (let tries = 0; !await this.#isReady(); tries++) {
      if (tries === 300) throw new Error(`${this.#program.command(0, '')[0]} does not listen on port ${this.port}`)
      await new Promise((resolve) => { setTimeout(resolve, 50) })
    }
  }

  async #isReady (): Promise<boolean> {
    return await answers(this.port) && this.#program.isReady?.(this.#folder) !== false
  }

  /** It is gone at once, and every connection to it. */
  async stop (): Promise<void> {
    const guard = this.#guard
    if (guard === undefined) return
    this.#guard = undefined
    this.resume()
    guard.ref()
    const over = once(guard, 'exit')
    guard.stdin?.end('stop\n')
    await over
  }

  /** It keeps its connections and answers nothing. */
  pause (): void { this.#signal('SIGSTOP') }
  resume (): void { this.#signal('SIGCONT') }

  /** PostgreSQL serves each connection with a process of its own. */
  #signal (signal: 'SIGSTOP' | 'SIGCONT'): void {
    const { stdout } = spawnSync('ps', ['-o', 'pid=', '--ppid', String(this.#pid)], { encoding: 'utf8' })
    const children = stdout.split('\n').filter((line) => line.trim() !== '').map(Number)
    for (const pid of [this.#pid, ...children]) {
      try {
        process.kill(pid, signal)
      } catch { /* it has ended meanwhile */ }
    }
  }

  /** For good. */
  async remove (): Promise<void> {
    await this.stop()
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

export async function answers (port: number, host = '127.0.0.1'): Promise<boolean> {
  const socket = connect({ port, host })
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

/** For programs that must be told one. Below those that the system gives to connections: nobody else takes it while its server is away. */
export async function freePort (): Promise<number> {
  for (;;) {
    const server = createServer().listen(randomInt(10_000, 32_000), '127.0.0.1')
    try {
      await once(server, 'listening')
    } catch {
      continue // taken
    }
    const { port } = server.address() as AddressInfo
    server.close()
    await once(server, 'close')
    return port
  }
}
