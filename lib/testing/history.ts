/** What every job went through: who asks for a state finds it, however long ago it was reached. */
import { isFinal, type JobRecord, type JobState } from '../job.ts'

/** Jobs remembered; the oldest go first. */
const REMEMBERED = 10_000

interface Past {
  readonly states: Set<JobState>
  /** Retention may have forgotten a job that ended. */
  last: JobRecord | undefined
}

interface Waiter {
  readonly matches: (job: JobRecord) => boolean
  readonly state: JobState
  readonly resolve: (job: JobRecord) => void
  readonly reject: (error: unknown) => void
}

export class History {
  readonly #read: (id: string) => JobRecord | undefined
  readonly #jobs = new Map<string, Past>()
  readonly #waiters = new Set<Waiter>()

  constructor (read: (id: string) => JobRecord | undefined) {
    this.#read = read
  }

  /** To be called at each change: an ended job can be read then. */
  note (id: string, state: JobState): void {
    const past = this.#jobs.get(id) ?? this.#remember(id)
    past.states.add(state)
    if (isFinal(state)) past.last = this.#read(id)
    for (const waiter of this.#waiters) if (waiter.state === state && this.#answer(waiter, id)) this.#waiters.delete(waiter)
  }

  /** The job as it is, or as it ended. */
  job (id: string): JobRecord | undefined {
    return this.#read(id) ?? this.#jobs.get(id)?.last
  }

  /** A job that has been in that state, or the first that gets there. */
  until (matches: (job: JobRecord) => boolean, state: JobState): Promise<JobRecord> {
    return new Promise((resolve, reject) => {
      const waiter = { matches, state, resolve, reject }
      for (const [id, { states }] of this.#jobs) if (states.has(state) && this.#answer(waiter, id)) return
      this.#waiters.add(waiter)
    })
  }

  #answer ({ matches, resolve, reject }: Waiter, id: string): boolean {
    const job = this.job(id)
    try {
      if (job === undefined || !matches(job)) return false
      resolve(job)
    } catch (error) {
      reject(error) // the test's own predicate
    }
    return true
  }

  #remember (id: string): Past {
    const past: Past = { states: new Set(), last: undefined }
    this.#jobs.set(id, past)
    const [oldest] = this.#jobs.keys()
    if (this.#jobs.size > REMEMBERED && oldest !== undefined) this.#jobs.delete(oldest)
    return past
  }
}
