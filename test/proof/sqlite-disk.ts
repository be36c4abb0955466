/** A service whose disk is really full, and then has room again; and a file that is really read-only. */
import { execFileSync, type ChildProcess } from 'node:child_process'
import { appendFileSync, mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Fastify from 'fastify'
import { sqlite } from '../../lib/backends/sqlite/index.ts'
import { backgroundTasks } from '../../lib/index.ts'
import { openRaw } from '../support/sqlite.ts'
import { ask, gone, launch, pause, settled } from './sqlite-run.ts'

export interface DiskVerdict {
  readonly accepted: number
  readonly refused: number
  /** Of the accepted jobs. */
  readonly completed: number
  /** As health told it, before, after each refusal, and in the end. */
  readonly told: string[]
}

/** More than there is room for. */
const MANY = 3_000
const BYTES = 4_194_304

/** The service keeps its file in a file system of 4 MiB. */
export async function onFullDisk (): Promise<DiskVerdict | string> {
  const disk = mount()
  if (typeof disk === 'string') return disk
  const filler = join(disk.folder, 'filler')
  try {
    return await trouble(disk.folder, () => {
      try {
        for (;;) appendFileSync(filler, Buffer.alloc(4_096))
      } catch { /* now it is full */ }
    }, () => { rmSync(filler) })
  } finally {
    disk.remove()
  }
}

/** What an application says that is to work on a file of a file system that is read-only. */
export async function onReadOnlyDisk (): Promise<string> {
  const disk = mount()
  if (typeof disk === 'string') return disk
  try {
    const file = join(disk.folder, 'jobs.db')
    openRaw(file).close()
    execFileSync('mount', ['-o', 'remount,ro', disk.folder])
    const app = Fastify()
    await app.register(backgroundTasks, { backend: sqlite({ path: file }) })
    return await app.ready().then(() => 'it started', (error: Error & { code: string }) => `${error.code}: ${error.message}`)
  } finally {
    disk.remove()
  }
}

async function trouble (folder: string, begin: () => void, end: () => void): Promise<DiskVerdict> {
  const open = new Set<ChildProcess>()
  const runs = mkdtempSync(join(tmpdir(), 'runs-'))
  const service = await launch(open, { FILE: join(folder, 'jobs.db'), RUNS: join(runs, 'runs') }, 'ignore')
  const told: string[] = []
  const ids: string[] = []
  let refused = 0
  const add = async (): Promise<boolean> => {
    const answer = await ask(service.port, '/one', { n: 1, pause: 0 })
    if (answer === undefined) refused++
    else ids.push(...answer.ids)
    return answer !== undefined
  }
  const tell = async (): Promise<void> => { told.push(await status(service.port)) }
  try {
    await add()
    await tell()
    begin()
    // A small write of its own may still find room, and health is well again until the next job.
    for (let n = 0; n < MANY && told.at(-1) !== 'degraded'; n++) if (!await add()) await tell()
    end()
    for (let n = 0; n < 100 && !await add(); n++) await pause(50)
    await settled(service, 100)
    await tell()
    service.child.kill('SIGTERM')
    await gone(service.child)
    const raw = openRaw(join(folder, 'jobs.db'))
    const completed = raw.prepare("SELECT count(*) AS n FROM background_jobs WHERE state = 'completed' AND id IN (SELECT value FROM json_each(?))").get(JSON.stringify(ids))
    raw.close()
    return { accepted: ids.length, refused, completed: Number(completed?.['n']), told }
  } finally {
    for (const child of open) child.kill('SIGKILL')
    rmSync(runs, { recursive: true })
  }
}

/** A small file system of its own; or why there can be none here. */
function mount (): { folder: string, remove (): void } | string {
  const folder = mkdtempSync(join(tmpdir(), 'disk-'))
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${BYTES}`, 'tmpfs', folder], { stdio: 'ignore' })
  } catch {
    rmSync(folder, { recursive: true })
    return 'NOT TESTED HERE: a file system cannot be mounted'
  }
  return {
    folder,
    remove () {
      execFileSync('umount', ['-l', folder])
      rmSync(folder, { recursive: true })
    }
  }
}

function status (port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    http.get({ host: '127.0.0.1', port, path: '/health/jobs', agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => { text += chunk })
      response.on('end', () => { resolve((JSON.parse(text) as { status: string }).status) })
    }).on('error', reject)
  })
}
