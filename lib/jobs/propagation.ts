/** The propagators of an application. One that fails is logged, and the job goes on without it. */
import * as check from '../check.ts'
import { describe } from '../describe.ts'
import { errors } from '../errors.ts'
import type { Attempt, Carrier, Outcome } from '../job.ts'
import type { Observer } from '../observe.ts'
import type { AttemptScope, JobMade, Propagator } from '../propagator.ts'
import { factsOf } from './context.ts'

/** Characters of a carrier, names and values: more is no context but a payload. */
const MOST = 16_384
const NOTHING: Carrier = Object.freeze({})

export class Propagation {
  readonly #observer: Observer
  readonly #propagators: Propagator[] = []
  #closed = false

  constructor (observer: Observer) {
    this.#observer = observer
  }

  get active (): boolean { return this.#propagators.length > 0 }

  /** @throws FST_BG_BAD_OPTION, FST_BG_HOOK_AFTER_READY */
  add (propagator: Propagator): void {
    if (typeof propagator?.inject !== 'function' || typeof propagator.extract !== 'function') {
      throw new errors.BadOption('propagate(propagator)', 'an object with the functions inject and extract', check.came(propagator))
    }
    if (this.#closed) throw new errors.HookAfterReady('propagate')
    this.#propagators.push(propagator)
  }

  close (): void {
    this.#closed = true
  }

  /** Undefined when there is nothing to keep. */
  inject (job: JobMade): Carrier | undefined {
    const { id, name, queue, requestId, bytes } = job
    const carrier: Record<string, string> = {}
    for (const propagator of this.#propagators) {
      const own: Record<string, string> = {}
      try {
        propagator.inject({ id, name, queue, requestId, bytes }, own)
        take(carrier, own)
      } catch (error) {
        this.#observer.policyFailed('inject', describe(error), job)
      }
    }
    return Object.keys(carrier).length === 0 ? undefined : Object.freeze(carrier)
  }

  /** Undefined when nobody has anything to do with this attempt. */
  extract (attempt: Attempt): AttemptScope | undefined {
    const { job, waited: waitMs } = attempt
    const made = { job: factsOf(attempt), carrier: job.carrier ?? NOTHING, bytes: job.bytes, waitMs }
    const scopes = this.#propagators.flatMap((propagator) => this.#extractWith(propagator, made, attempt) ?? [])
    return scopes.length === 0 ? undefined : {
      run: (work) => scopes.reduceRight<typeof work>((inner, scope) => () => this.#runIn(scope, attempt, inner), work)(),
      end: (outcome, error) => { for (const scope of scopes) this.#endOf(scope, attempt, outcome, error) }
    }
  }

  #extractWith (propagator: Propagator, made: Parameters<Propagator['extract']>[0], { job }: Attempt): AttemptScope | undefined {
    try {
      return propagator.extract(made)
    } catch (error) {
      this.#observer.policyFailed('extract', describe(error), job)
      return undefined
    }
  }

  /** The work is done once, and its own answer counts, whatever the scope makes of it. */
  #runIn<T> (scope: AttemptScope, { job }: Attempt, work: () => T): T {
    const once = new Once(work)
    try {
      const answer: unknown = scope.run(once.run)
      // A promise made of the work's own fails with it, and nobody looks at that one.
      if (answer instanceof Promise) answer.catch(() => {})
      if (!once.done) throw new errors.BadOption('run(work)', 'a call of work', 'none')
    } catch (error) {
      if (!once.threw(error)) this.#observer.policyFailed('run', describe(error), job)
    }
    return once.run()
  }

  #endOf (scope: AttemptScope, { job }: Attempt, outcome: Outcome, error: unknown): void {
    try {
      scope.end?.(outcome, error)
    } catch (thrown) {
      this.#observer.policyFailed('end', describe(thrown), job)
    }
  }
}

/** Work that is done at the first call; each call answers, or throws, the same. */
class Once<T> {
  readonly #work: () => T
  #end: { readonly answer: T } | { readonly thrown: unknown } | undefined

  constructor (work: () => T) {
    this.#work = work
  }

  get done (): boolean { return this.#end !== undefined }

  threw (error: unknown): boolean { return this.#end !== undefined && 'thrown' in this.#end && this.#end.thrown === error }

  readonly run = (): T => {
    if (this.#end === undefined) {
      try {
        this.#end = { answer: this.#work() }
      } catch (thrown) {
        this.#end = { thrown }
      }
    }
    if ('thrown' in this.#end) throw this.#end.thrown
    return this.#end.answer
  }
}

/** @throws FST_BG_BAD_OPTION for what is no text, or too much of it */
function take (carrier: Record<string, string>, own: Record<string, string>): void {
  let size = 0
  for (const [name, text] of Object.entries({ ...carrier, ...own })) {
    if (typeof text !== 'string') throw new errors.BadOption(`carrier.${name}`, 'a text', check.came(text))
    size += name.length + text.length
  }
  if (size > MOST) throw new errors.BadOption('carrier', `at most ${MOST} characters`, String(size))
  Object.assign(carrier, own)
}
