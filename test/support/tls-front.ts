/** TLS in front of a server of the tests that speaks none. */
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { tls } from './tls.ts'

export interface Front {
  readonly port: number
  readonly close: () => Promise<void>
}

/** `asked`: the client asks for TLS first, as PostgreSQL's do. */
export async function tlsFront (port: number, asked: boolean): Promise<Front> {
  const open = new Set<Socket>()
  const server = createServer(async (client) => {
    open.add(client)
    client.on('error', () => {})
    if (asked) {
      await once(client, 'data') // its eight bytes
      client.write('S')
    }
    const inner = connect(port, '127.0.0.1')
    const outer = new TLSSocket(client, { isServer: true, key: tls.key, cert: tls.cert })
    for (const [one, other] of [[inner, outer], [outer, inner]] as const) {
      one.on('error', () => { other.destroy() })
      one.on('close', () => { other.destroy() })
      one.pipe(other)
    }
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    async close () {
      for (const socket of open) socket.destroy()
      server.close()
      await once(server, 'close')
    }
  }
}
