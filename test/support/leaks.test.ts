import { execFile } from 'node:child_process'
import { createServer, connect } from 'node:net'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t from 'tap'
import { startWatch, watchLeaks } from './leaks.ts'

t.test('a timer left is found', async (t) => {
  const watch = startWatch()
  const timer = setTimeout(() => {}, 3_600_000)
  t.teardown(() => clearTimeout(timer))
  t.strictSame(await watch.stop(), ['Timeout × 1'])
})

t.test('a timer left is found even if it keeps nothing alive', async (t) => {
  const watch = startWatch()
  const timer = setTimeout(() => {}, 3_600_000).unref()
  t.teardown(() => clearTimeout(timer))
  clearTimeout(setTimeout(() => {}, 3_600_000).unref())
  clearInterval(setInterval(() => {}, 3_600_000).unref())
  await promisify(setTimeout)(1)
  t.strictSame(await watch.stop(), ['unref\'d Timeout × 1'])
})

t.test('an interval left is found', async (t) => {
  const watch = startWatch()
  const timer = setInterval(() => {}, 3_600_000)
  t.teardown(() => clearInterval(timer))
  t.strictSame(await watch.stop(), ['Timeout × 1'])
})

t.test('a server and a socket left are found', async (t) => {
  const watch = startWatch()
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const socket = connect(port, '127.0.0.1')
  const [other] = await once(server, 'connection')
  t.teardown(() => { socket.destroy(); other.destroy(); server.close() })
  t.strictSame((await watch.stop()).sort(), ['TCPServerWrap × 1', 'TCPSocketWrap × 2'])
})

t.test('a socket that is closing is waited for', async (t) => {
  const watch = startWatch()
  const server = createServer((other) => other.end()).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket = connect((server.address() as { port: number }).port, '127.0.0.1')
  await once(socket, 'connect')
  socket.destroy()
  server.close()
  t.strictSame(await watch.stop(), [])
})

t.test('a process listener left is found', async (t) => {
  const watch = startWatch()
  const listener = () => {}
  process.on('SIGUSR2', listener)
  t.teardown(() => process.off('SIGUSR2', listener))
  // Node holds a handle of its own for a signal, but does not count it as active.
  t.strictSame(await watch.stop(), ['process listener SIGUSR2 × 1'])
})

t.test('a process warning is found, unless it is expected', async (t) => {
  const strict = startWatch()
  const lenient = startWatch({ allowWarnings: /look here/ })
  process.emitWarning('look here')
  t.strictSame(await lenient.stop(), [])
  t.strictSame(await strict.stop(), ['process warning: Warning: look here'])
})

t.test('an unhandled rejection is found', async (t) => {
  const watch = startWatch()
  void Promise.reject(new Error('lost'))
  t.strictSame(await watch.stop(), ['unhandled rejection: Error: lost'])
})

t.test('a clean test leaves nothing, nor does the watch', async (t) => {
  const before = process.listenerCount('warning') + process.listenerCount('unhandledRejection')
  const watch = startWatch()
  clearTimeout(setTimeout(() => {}, 3_600_000))
  await once(createServer().listen(0, '127.0.0.1').close(), 'close')
  t.strictSame(await watch.stop(), [])
  t.equal(process.listenerCount('warning') + process.listenerCount('unhandledRejection'), before)
})

t.test('a test that leaks fails, a clean one passes', async (t) => {
  watchLeaks(t)
  const { output, code } = await run(fileURLToPath(new URL('fixtures/leaky.ts', import.meta.url)))
  for (const name of ['timer', 'socket', 'listener', 'warning', 'rejection']) {
    t.match(output, new RegExp(`^not ok \\d+ - ${name} `, 'm'))
  }
  t.match(output, /^ok \d+ - clean /m)
  for (const left of [
    'Timeout × 1', 'TCPServerWrap × 1', 'process listener SIGUSR2 × 1',
    'process warning: Warning: look here', 'unhandled rejection: Error: lost'
  ]) t.match(output, `the test left behind: ${left}`)
  t.equal(code, 1)
})

/** What the program prints, as TAP, and its exit code. */
function run (file: string): Promise<{ output: string, code: number }> {
  const env = { ...process.env, TAP: '1', TAP_BAIL: '0' }
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [...process.execArgv, file], { env }, (_error, output) => {
      resolve({ output, code: child.exitCode ?? -1 })
    })
  })
}
