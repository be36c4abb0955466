// Starts app.js as `fastify start` does, has it greet somebody, and stops it.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createRequire } from 'node:module'

const cli = createRequire(import.meta.url).resolve('fastify-cli/cli.js')
const service = spawn(process.execPath, [cli, 'start', '--port', '0', '--log-level', 'info', 'app.js'], { cwd: import.meta.dirname, stdio: ['ignore', 'pipe', 'inherit'] })
let said = ''
while (!/http:[^"\s]+/.test(said)) said += String(await once(service.stdout, 'data'))
const [base] = /http:[^"\s]+/.exec(said)
service.stdout.resume()
const { headers } = await fetch(`${base}/greet/ada`, { method: 'POST' })
let status
do status = await (await fetch(base + headers.get('location'))).json()
while (status.finishedAt === null)
service.kill('SIGTERM')
const [code] = await once(service, 'exit')
console.log(status.result, code)
