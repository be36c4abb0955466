// Who may do what with jobs: the state of one is open to whoever knows its id, all else is for holders of the token.

import { createHash, timingSafeEqual } from 'node:crypto'

const digest = (text) => createHash('sha256').update(text).digest()

export function authorizeBy (token) {
  const expected = digest(`Bearer ${token}`)

  return (request, action) => {
    if (action === 'read' || timingSafeEqual(digest(request.headers.authorization ?? ''), expected)) return true
    throw Object.assign(new Error('a token is needed'), { statusCode: 401 })
  }
}
