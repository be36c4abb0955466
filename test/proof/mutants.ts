/** Ways to break lib/ that the proofs must see. */

export interface Mutant {
  readonly title: string
  /** File below lib/, text that must be there, and what takes its place everywhere in the file. */
  readonly edits: ReadonlyArray<readonly [file: string, from: string, to: string]>
  /** The short proof that sees it, and what it says then. */
  readonly by: 'model' | 'owner' | 'regressions' | 'soak' | 'chaos'
  readonly says: RegExp
}

const gate = 'http/gate.ts'
const runner = 'jobs/runner.ts'
const memory = 'backends/memory/index.ts'
const lifecycle = 'backends/memory/lifecycle.ts'
const lists = 'backends/memory/lists.ts'
const groups = 'backends/memory/groups.ts'
const streamClose = "    if (isHttp2(raw)) raw.stream.once('close', () => { onClose.call(raw) })\n"
const socketClose = '    else if (raw.socket === null) waitBehind(reply.request.raw.socket, hold)\n'
const listening = "    raw.on('finish', onFinish)\n    raw.on('close', onClose)\n"

const onResponseAlone: Mutant['edits'] = [
  [gate, listening, ''],
  [gate, '    hold.giveUp = afterHandler(raw, () => { this.#end(hold, true) })\n', ''],
  [gate, '  finished (hold: Hold): void {\n', '  finished (hold: Hold): void {\n    if (hold === undefined) return\n'],
  ['plugin.ts', "  app.addHook('onError'", "  app.addHook('onResponse', (_request, reply, done) => {\n    const hold = Object.getOwnPropertySymbols(reply.raw).find((key) => key.description === 'fastify-background-tasks.hold')\n    gate.finished(reply.raw[hold])\n    done()\n  })\n  app.addHook('onError'"]
]

const eachEvent: Mutant['edits'] = [
  [gate, "    if (hold.state !== 'open') return\n", ''],
  [gate, "    if (hold.state === 'open') this.#clientGone(hold)", '    this.#clientGone(hold)'],
  [gate, "    if (hold.state === 'over') return\n    const { raw }", '    const { raw }'],
  [gate, '    hold.reply = undefined\n', ''],
  [gate, '    this.#deadlines.delete(hold)\n    unlisten(raw)\n', '    this.#deadlines.delete(hold)\n'],
  [gate, '      hold.staged = []\n', ''],
  [memory, "      if (entry?.state !== 'pending') continue\n", '      if (entry === undefined) continue\n']
]

export const mutants: Mutant[] = [
  {
    title: 'the gate waits for onResponse alone',
    edits: onResponseAlone,
    by: 'model',
    says: /its response is over, and it still waits for it/
  },
  {
    title: 'the gate does not hear close',
    edits: [[gate, "    raw.on('close', onClose)\n", '']],
    by: 'model',
    says: /its response is over, and it still waits for it|its response did not end as it asked/
  },
  {
    title: 'the gate releases once for each event',
    edits: eachEvent,
    by: 'model',
    says: /became|waits beside a free slot|counts say/
  },
  {
    title: 'jobs start before the response is over',
    edits: [[gate, '    hold.staged.push(job)\n', '    hold.staged.push(job)\n    this.#backend.release([job.id])\n']],
    by: 'model',
    says: /the response is not over/
  },
  {
    title: 'a timeout frees the slot while the body runs on, as p-queue does',
    edits: [
      [runner, 'invoke(running, task, this.settings.observer)', 'Promise.race([invoke(running, task, this.settings.observer), new Promise((resolve) => { running.free = resolve })])'],
      [runner, '    running.abortedAt = ', '    running.free?.()\n    running.abortedAt = ']
    ],
    by: 'model',
    says: /its body runs, and was not given up|two attempts at once|bodies alive/
  },
  {
    title: 'a verdict is stored without asking who owns the job',
    edits: [[memory, '    if (entry.attempt !== attempt) return ', '    ']],
    by: 'owner',
    says: /late verdict|cannot become/
  },
  {
    title: 'one attempt too many',
    edits: [['jobs/retry.ts', 'job.attempt >= policy.attempts', 'job.attempt > policy.attempts']],
    by: 'model',
    says: /its body ended as .*: failed/
  },
  {
    title: 'an attempt that shall not count is counted',
    edits: [[memory, '        if (!outcome.charged) entry.attemptsMade--\n', '']],
    by: 'model',
    says: /attempt/
  },
  {
    title: 'retention keeps everything',
    edits: [[lists, 'this.#list.size <= this.#limit.count && ', '']],
    by: 'model',
    says: /counts say/
  },
  {
    title: 'retention keeps everything, seen by the soak',
    edits: [[lists, 'this.#list.size <= this.#limit.count && ', '']],
    by: 'soak',
    says: /more jobs are kept than retention says/
  },
  {
    title: 'an ended job keeps its closure',
    edits: [[lifecycle, '      job.local = undefined\n', '']],
    by: 'soak',
    says: /requests are still held by their jobs/
  },
  {
    title: 'the limiter lets one too many through',
    edits: [['backends/limiter.ts', 'this.#starts.length < this.#rate.max', 'this.#starts.length <= this.#rate.max']],
    by: 'model',
    says: /limiter|counts say api/
  },
  {
    title: 'a start that never happened counts',
    edits: [[lifecycle, '    if (attempt.granted !== undefined && !attempt.begun) queue.limiter?.takeBack(attempt.granted)\n', '']],
    by: 'regressions',
    says: /waits beside a free slot/
  },
  {
    title: 'a group may have more jobs running than its limit',
    edits: [[groups, 'group.active < this.#settings.concurrency', 'true']],
    by: 'model',
    says: /its group has no slot free/
  },
  {
    title: 'a group keeps its turn while it has jobs',
    edits: [[groups, '      this.#leave(group)\n      const entry = group.ready.shift()\n', '      const entry = group.ready.shift()\n      if (entry === undefined) this.#leave(group)\n']],
    by: 'model',
    says: /comes before it/
  },
  {
    title: 'a deduplication id outlives its job',
    edits: [['backends/memory/deduplication.ts', "if (job.policy.deduplication?.ttl === 0 || state === 'cancelled') this.#release(job)", '']],
    by: 'model',
    says: /its handle is that of another job/
  },
  {
    title: 'a parent starts when its first child has ended',
    edits: [['backends/memory/flows.ts', 'else if (open.size === 0)', 'else']],
    by: 'model',
    says: /a child has not ended as it asks/
  },
  {
    title: 'a child that fails does not fail its parent',
    edits: [['backends/memory/flows.ts', "state !== 'completed' && !ignored", 'false']],
    by: 'model',
    says: /a child has not ended as it asks|still waits for them/
  },
  {
    title: 'lower priorities go first',
    edits: [[lists, 'a.priority > b.priority', 'a.priority < b.priority']],
    by: 'model',
    says: /comes before it/
  },
  {
    title: 'the last to arrive goes first',
    edits: [[lists, 'this.#order.first?.first', 'this.#order.first?.last'], [lists, '#last: E |', 'last: E |'], [lists, 'this.#last', 'this.last']],
    by: 'model',
    says: /comes before it/
  },
  {
    title: 'timers are not cleared at close',
    edits: [['deadlines.ts', '    this.#heap.clear()\n    this.#disarm()\n', '    this.#heap.clear()\n']],
    by: 'model',
    says: /timers left/
  },
  {
    title: 'a delay is not waited for',
    edits: [[lifecycle, "if (entry.timing !== undefined && entry.timing.notBefore > now) this.#delay(entry, entry.timing, 'delay', now)\n    else ", '']],
    by: 'model',
    says: /it may start at/
  },
  {
    title: 'the time to live is forgotten while a job waits',
    edits: [[lifecycle, 'entry.takesRoom ? timing.expires : Infinity', "entry.takesRoom && entry.state !== 'waiting' ? timing.expires : Infinity"]],
    by: 'model',
    says: /its time to live was over/
  },
  {
    title: 'waiting goes by the wall clock',
    edits: [['deadlines.ts', 'this.#clock.monotonic()', 'this.#clock.now()'], [lifecycle, 'clock.monotonic()', 'clock.now()'], [memory, 'this.clock.monotonic()', 'this.clock.now()']],
    by: 'model',
    says: /./
  },
  {
    title: 'a paused queue goes on',
    edits: [['jobs/pool.ts', 'this.#paused || this.#stopped', 'this.#stopped']],
    by: 'model',
    says: /the queue is paused/
  },
  {
    title: 'the waiting room takes one more',
    edits: [['jobs/add.ts', 'here.jobs + jobs > maxQueueSize', 'here.jobs + jobs > maxQueueSize + 1']],
    by: 'model',
    says: /there is no room/
  },
  {
    title: 'the waiting room forgets the bytes',
    edits: [[lifecycle, '    load.bytes -= entry.job.bytes\n', '']],
    by: 'model',
    says: /refused: .*FST_BG_QUEUE_FULL|refused: .*is full/
  },
  {
    title: 'a slot is lost when a body that was given up ends after all',
    edits: [['jobs/dispatch.ts', '      this.#pool(running.attempt).unhold()\n', '']],
    by: 'model',
    says: /waits beside a free slot/
  },
  {
    title: 'what a shutdown leaves is not named',
    edits: [['jobs/drain.ts', "?.reason === 'shutdown'", "?.reason === 'response'"]],
    by: 'model',
    says: /onUnfinished names/
  },
  // The faults that the model test has found.
  {
    title: 'a cancel after the timeout, or in the turn of the end, is forgotten',
    edits: [['jobs/dispatch.ts', 'this.runner.verdict(running)', 'running.judged']],
    by: 'regressions',
    says: /aborted by timeout: cancelled/
  },
  {
    title: 'a shutdown names what was cancelled otherwise',
    edits: [['jobs/drain.ts', 'cancelled.push(this.#backends.volatile.get(id))', "cancelled.push({ id, reason: 'shutdown' })"]],
    by: 'regressions',
    says: /onUnfinished names/
  },
  {
    title: 'the end of a response cancels what is no longer pending',
    edits: [[gate, "  if ((await backend.get(job.id))?.state !== 'pending') return\n", '']],
    by: 'regressions',
    says: /nobody cancelled it/
  },
  {
    title: 'a response over by maxHold is judged again',
    edits: [[gate, "    if (hold.state === 'over') return // by maxHold", '    // by maxHold'], [gate, 'hold.end as ResponseEnd', '{ ...hold.end, failed: hold.failed } as ResponseEnd']],
    by: 'regressions',
    says: /nobody cancelled it/
  },
  {
    title: 'the limiter goes by deadlines that ring early',
    edits: [[lifecycle, 'this.pump(entry.home, this.#clock.monotonic()) //', 'this.pump(entry.home, now) //']],
    by: 'regressions',
    says: /the limiter forbids it/
  },
  // What real clients see.
  {
    title: 'the gate waits for onResponse alone, seen by the clients',
    edits: onResponseAlone,
    by: 'chaos',
    says: /lost [1-9]/
  },
  {
    title: 'the gate hears finish alone',
    edits: [[gate, "    raw.on('close', onClose)\n", ''], [gate, streamClose, ''], [gate, socketClose, '']],
    by: 'chaos',
    says: /lost [1-9]/
  },
  {
    title: 'the gate does not hear the close of a stream',
    edits: [[gate, streamClose, ''], [gate, '    else if (raw.socket', '    if (raw.socket']],
    by: 'chaos',
    says: /lost [1-9]/
  },
  {
    title: 'the gate does not hear the close of a pipelined connection',
    edits: [[gate, socketClose, '']],
    by: 'chaos',
    says: /lost [1-9]/
  },
  {
    title: 'the gate releases once for each event, seen by the clients',
    edits: eachEvent,
    by: 'chaos',
    says: /twice [1-9]|cannot become/
  },
  {
    title: 'the gate releases in the turn of the end',
    edits: [[gate, 'this.#clock.soon(() => {', '[0].forEach(() => {']],
    by: 'chaos',
    says: /early [1-9]/
  },
  {
    title: 'an abandoned response does not wait for its handler',
    edits: [[gate, "    hold.state = 'abandoned'\n", '    return this.#end(hold, true)\n']],
    by: 'chaos',
    says: /early [1-9]/
  },
  {
    title: 'a client that left is not noticed',
    edits: [[gate, 'error: hold.error, aborted }', 'error: hold.error, aborted: false }']],
    by: 'chaos',
    says: /wrong [1-9]/
  },
  {
    title: 'what waits for a handler stays when maxHold has given it up',
    edits: [[gate, '    hold.giveUp?.()\n', '']],
    by: 'chaos',
    says: /left [1-9]/
  }
]
