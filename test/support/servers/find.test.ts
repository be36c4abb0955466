import { spawn } from 'node:child_process'
import { once } from 'node:events'
import t, { type Test } from 'tap'
import { typescriptLoader } from '../loaders.ts'
import { eventually } from '../real-time.ts'
import { findServer, startServer, type Kind } from './find.ts'
import { postgres } from './postgres.ts'
import { answers } from './process.ts'
import { redis } from './redis.ts'

const nowhere: Kind = { ...redis, findRunning: async () => undefined, start: async () => undefined }

/** Sets variables for one test. */
function environment (t: Test, values: Record<string, string | undefined>): void {
  for (const [name, value] of Object.entries(values)) {
    const before = process.env[name]
    const set = (to: string | undefined): void => { if (to === undefined) delete process.env[name]; else process.env[name] = to }
    set(value)
    t.teardown(() => { set(before) })
  }
}

t.test('a server that is not there skips, with what to install; BG_REQUIRE makes it an error', async (t) => {
  environment(t, { REDIS_URL: undefined, BG_REQUIRE: 'postgres' })
  t.match(await findServer(nowhere), /no redis server .* redis-server .* REDIS_URL/)
  environment(t, { BG_REQUIRE: 'redis,postgres' })
  await t.rejects(findServer(nowhere), /no redis server/)
})

t.test('a server that is named is used', async (t) => {
  environment(t, { REDIS_URL: 'redis://example.org' })
  t.match(await findServer(nowhere), { url: 'redis://example.org' })
})

for (const kind of [redis, postgres]) {
  t.test(`${kind.name}: one of our own can be stopped, started again, and is gone in the end`, async (t) => {
    const found = await startServer(kind)
    if (typeof found === 'string') return t.plan(0, found)
    const { server } = found
    t.equal(await answers(server.port), true)
    await server.stop()
    t.equal(await answers(server.port), false)
    await server.start()
    server.pause()
    await found.release()
    t.equal(await answers(server.port), false)
  })
}

t.test('a server does not outlive the process that started it', async (t) => {
  const probe = await startServer(redis)
  if (typeof probe === 'string') return t.plan(0, probe)
  await probe.release()
  const script = `import { startServer } from ${JSON.stringify(new URL('find.ts', import.meta.url).href)}
    import { redis } from ${JSON.stringify(new URL('redis.ts', import.meta.url).href)}
    console.log((await startServer(redis)).server.port)
    setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, [...typescriptLoader, '--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, NODE_OPTIONS: '' } })
  const [line] = await once(child.stdout, 'data') as [Buffer]
  const port = Number(line.toString())
  t.equal(await answers(port), true)
  child.kill('SIGKILL')
  await once(child, 'exit')
  await eventually(async () => !await answers(port), 'its end')
})
