/**
 * The load, in a process of its own: so many connections, kept alive, each with one request under way. For each message
 * it works until so many requests are answered, and so many ms have passed; then it answers with its counts. It does
 * less for a request than a client library would: on a machine of two cores it must not take the server's time.
 */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { alarm } from '../measure.ts'
import { BODY, PATH } from './app.ts'

export interface Work {
  readonly requests: number
  readonly ms: number
}

export interface Counts {
  answered: number
  refused: number
}

const [port, connections] = process.argv.slice(2).map(Number) as [number, number]
const REQUEST = Buffer.from([
  `POST ${PATH} HTTP/1.1`, 'host: localhost', 'content-type: application/json', `content-length: ${BODY.length}`, '', BODY
].join('\r\n'))

let counts: Counts = { answered: 0, refused: 0 }
let enough = (): boolean => true
let idle = connections
let rest = (): void => {}

process.on('disconnect', () => { process.exit() })
const sockets = await Promise.all(Array.from({ length: connections }, open))
process.on('message', (message: Work) => { void work(message) })

async function work ({ requests, ms }: Work): Promise<void> {
  counts = { answered: 0, refused: 0 }
  const over = alarm(ms)
  enough = () => counts.answered >= requests && over()
  idle = 0
  for (const socket of sockets) socket.write(REQUEST)
  await new Promise<void>((resolve) => { rest = resolve })
  process.send?.(counts)
}

async function open (): Promise<Socket> {
  const socket = connect(port, '127.0.0.1')
  let text = ''
  socket.setNoDelay(true)
  socket.setEncoding('latin1')
  socket.on('data', (chunk: string) => {
    text += chunk
    const head = text.indexOf('\r\n\r\n')
    if (head === -1) return
    const length = Number(/content-length: (\d+)/i.exec(text)?.[1])
    if (text.length < head + 4 + length) return
    const status = text.slice(9, 12)
    if (status === '503') counts.refused++
    else if (status !== '200') throw new Error(text)
    counts.answered++
    text = ''
    if (!enough()) socket.write(REQUEST)
    else if (++idle === connections) rest()
  })
  await once(socket, 'connect')
  return socket
}
