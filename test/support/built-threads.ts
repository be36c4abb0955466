/**
 * Import this, and threads of this process load what was built, under plain Node: a thread that compiles for itself
 * brings tap's compiler along, which costs more than all of its test.
 */
import workers, { type WorkerOptions } from 'node:worker_threads'
import { Piscina } from 'piscina'

const { Worker } = workers
workers.Worker = class extends Worker {
  constructor (file: string | URL, options?: WorkerOptions) {
    super(file, { ...options, execArgv: [] })
  }
}

// oxlint-disable-next-line unbound-method -- called with its object below
const { run } = Piscina.prototype
Piscina.prototype.run = function (errand, options = {}) {
  return run.call(this, errand, { ...options, filename: options.filename?.replace('/lib/', '/dist/').replace(/ts$/, 'js') ?? null })
}
