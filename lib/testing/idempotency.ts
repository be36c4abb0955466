/** Whether a task may be run twice: it is stopped right after each of its effects in turn, and run again. */
export interface Fake {
  /** What the handler calls to have an effect: its methods are watched, and stopped at, during the check. */
  readonly methods: object
  /** All effects since `reset`, as JSON. */
  readonly effects: () => unknown
  /** Forgets them, and all that the methods remember. */
  readonly reset: () => void
}

/** A run that had other effects than the undisturbed one. */
export interface IdempotencyFault {
  /** The call after which the first attempt ended: `charge`, or `charge, call 2`. */
  readonly after: string
  readonly effects: unknown
  /** Those of the undisturbed run. */
  readonly expected: unknown
  /** What the last attempt threw, where it failed. */
  readonly error?: string
}

/** How a run ended: which job it was, and what its last attempt threw. */
export interface Trial {
  readonly id: string
  readonly error: string | undefined
}

type Method = (...args: unknown[]) => unknown

/** `run` makes a job and runs it: undisturbed, or with a first attempt that the interruption ends. */
export async function faultsOf (fake: Fake, run: (interruption: Interruption | undefined) => Promise<Trial>): Promise<IdempotencyFault[]> {
  const interruption = new Interruption(fake.methods)
  const effectsOf = async (interrupted: boolean): Promise<{ text: string, error: string | undefined }> => {
    fake.reset()
    const { id, error } = await run(interrupted ? interruption : undefined)
    return { text: (JSON.stringify(fake.effects()) ?? 'null').replaceAll(id, 'id of the job'), error }
  }
  try {
    const expected = await effectsOf(false)
    const faults: IdempotencyFault[] = []
    for (const [at, after] of interruption.take().entries()) {
      interruption.arm(at)
      const { text, error } = await effectsOf(true)
      if (text === expected.text && error === undefined) continue
      faults.push({ after, effects: JSON.parse(text), expected: JSON.parse(expected.text), ...(error !== undefined && { error }) })
    }
    return faults
  } finally {
    interruption.remove()
  }
}

/** Lies over the methods of an object. As in a process that died, nothing has an effect after the call it is armed for. */
export class Interruption {
  readonly #target: Record<string, unknown>
  /** Own properties as they were; undefined where the method came from a prototype. */
  readonly #before = new Map<string, PropertyDescriptor | undefined>()
  readonly #error = new Error('the attempt was interrupted by checkIdempotent')
  #calls: string[] = []
  #at = Infinity
  #over = false

  constructor (methods: object) {
    this.#target = methods as Record<string, unknown>
    for (const name of methodsOf(methods)) {
      this.#before.set(name, Object.getOwnPropertyDescriptor(methods, name))
      const method = this.#target[name] as Method
      const value: Method = (...args) => this.#call(name, () => method.apply(methods, args))
      Object.defineProperty(methods, name, { value, configurable: true, writable: true, enumerable: true })
    }
  }

  arm (at: number): void {
    this.#calls = []
    this.#at = at
  }

  /** The next attempt goes undisturbed. */
  disarm (): void {
    this.#at = Infinity
    this.#over = false
  }

  /** The calls so far, by name. */
  take (): string[] {
    const seen = new Map<string, number>()
    return this.#calls.map((name) => {
      const n = (seen.get(name) ?? 0) + 1
      seen.set(name, n)
      return n === 1 ? name : `${name}, call ${n}`
    })
  }

  remove (): void {
    for (const [name, before] of this.#before) {
      if (before === undefined) delete this.#target[name]
      else Object.defineProperty(this.#target, name, before)
    }
  }

  #call (name: string, original: () => unknown): unknown {
    if (this.#over) throw this.#error
    const answer = original()
    if (this.#calls.push(name) - 1 !== this.#at) return answer
    this.#over = true
    if (answer instanceof Promise) return answer.then(() => { throw this.#error })
    throw this.#error
  }
}

function methodsOf (target: object): Set<string> {
  const names = new Set<string>()
  for (let each: object | null = target; each !== null && each !== Object.prototype; each = Object.getPrototypeOf(each) as object | null) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(each))) {
      if (name !== 'constructor' && typeof value === 'function') names.add(name)
    }
  }
  return names
}
