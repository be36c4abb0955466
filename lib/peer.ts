/** Optional peers: loaded when they are needed, by whoever needs them. */
import { peek } from './describe.ts'
import { errors } from './errors.ts'

/**
 * What `load` imports. `who` needs it; `packages`: to install when it is not there.
 * @throws FST_BG_PEER_MISSING
 */
export async function importPeer<Peer> (who: string, packages: string, load: () => Promise<Peer>): Promise<Peer> {
  try {
    return await load()
  } catch (cause) {
    const code = peek(cause, 'code')
    if (code !== 'ERR_MODULE_NOT_FOUND' && code !== 'MODULE_NOT_FOUND') throw cause
    throw Object.assign(new errors.PeerMissing(who, packages), { cause })
  }
}
