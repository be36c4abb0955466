/** What stands between JSON values and the store: nothing, or the user's `codec`. */
import { describe } from '../../describe.ts'
import { UnrecoverableError } from '../../errors.ts'
import { cloneJson, type Json } from '../../json.ts'

/** Applied to payloads, results and progress; not to names, ids and the texts of errors. */
export interface Codec {
  /** From the JSON text to what is stored in its place. */
  encode: (text: string) => string
  /** Back. What it throws makes the job a dead letter at its start. */
  decode: (text: string) => string
}

/** What PostgreSQL has no place for, replaced: in texts that explain, and are not data. */
export function plainText (text: string): string {
  return text.replace(/[\0\p{Surrogate}]/gu, '\uFFFD')
}

export class Coder {
  readonly #codec: Codec | undefined

  constructor (codec: Codec | undefined) {
    this.#codec = codec
  }

  encode (value: Json): unknown {
    return this.#codec === undefined ? value : this.#codec.encode(JSON.stringify(value))
  }

  /** @throws UnrecoverableError */
  decode (stored: unknown): Json {
    if (this.#codec === undefined) return stored as Json
    try {
      if (typeof stored !== 'string') throw new TypeError(`expected a text, got ${typeof stored}`)
      return JSON.parse(this.#codec.decode(stored)) as Json
    } catch (cause) {
      throw new UnrecoverableError(`the codec cannot read what the store holds: ${describe(cause).message}`)
    }
  }

  /** For records: what cannot be decoded is shown as null. */
  read (stored: unknown): Json {
    try {
      return cloneJson(this.decode(stored))
    } catch {
      return null
    }
  }
}
