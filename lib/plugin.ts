/** The introductions: options are resolved, the rooms are built, and Fastify is told about them. */
import type { FastifyBaseLogger, FastifyInstance, FastifyPluginAsync, FastifyReply, FastifyTypeProvider, FastifyTypeProviderDefault } from 'fastify'
import fp from 'fastify-plugin'
import type { RawReplyDefaultExpression, RawRequestDefaultExpression, RawServerBase, RawServerDefault } from 'fastify'
import { BackgroundFacade, type Background } from './background.ts'
import { combine } from './backends/composite.ts'
import { systemClock } from './clock.ts'
import type { Backend } from './backend.ts'
import { describe } from './describe.ts'
import { errors } from './errors.ts'
import { DurableDoor } from './http/durable.ts'
import { Gate } from './http/gate.ts'
import { Waits } from './http/prefer.ts'
import { createAccepted, createStage, type AcceptJob, type StageJob } from './http/reply.ts'
import { addRoutes } from './http/routes.ts'
import { Intake } from './jobs/add.ts'
import { Bulk } from './jobs/bulk.ts'
import { Changes } from './jobs/changes.ts'
import { Control } from './jobs/control.ts'
import { Cron } from './jobs/cron.ts'
import { DeadLetters } from './jobs/dead-letters.ts'
import { Dispatch } from './jobs/dispatch.ts'
import { Drain } from './jobs/drain.ts'
import { atExit } from './jobs/exit.ts'
import { listen } from './jobs/floating.ts'
import { Flows } from './jobs/flow.ts'
import { HealthCheck } from './jobs/health.ts'
import { Hooks } from './jobs/hooks.ts'
import { Propagation } from './jobs/propagation.ts'
import { Registry } from './jobs/registry.ts'
import { Schedules } from './jobs/schedule.ts'
import { StatsReader } from './jobs/stats.ts'
import { Threads } from './jobs/threads.ts'
import { Observer } from './observe.ts'
import { resolveOptions, type BackgroundTasksOptions, type Settings } from './options.ts'

declare module 'fastify' {
  interface FastifyInstance<
    RawServer extends RawServerBase = RawServerDefault,
    RawRequest extends RawRequestDefaultExpression<RawServer> = RawRequestDefaultExpression<RawServer>,
    RawReply extends RawReplyDefaultExpression<RawServer> = RawReplyDefaultExpression<RawServer>,
    Logger extends FastifyBaseLogger = FastifyBaseLogger,
    TypeProvider extends FastifyTypeProvider = FastifyTypeProviderDefault
  > {
    background: Background<TypeProvider>
  }
  interface FastifyReply {
    background: StageJob
    accepted: AcceptJob<this>
  }
}

type Core = ReturnType<typeof build>

function build (app: FastifyInstance, settings: Settings) {
  const ownBackends = new Map<string, Backend>()
  for (const [queue, { backend }] of settings.queues) if (backend !== undefined) ownBackends.set(queue, backend)
  const backends = combine(settings.backend, ownBackends)
  const backend = backends.all
  if (settings.role !== 'both' && !backend.durable) throw new errors.BadOption('options.role', 'a durable backend, which processes can share', 'none')
  const clock = backend.clock ?? systemClock
  const { logLevel, logSerializers } = settings
  const log = logLevel === undefined && logSerializers === undefined ? app.log : childLogger(app, {
    ...(logLevel !== undefined ? { level: logLevel } : undefined),
    ...(logSerializers !== undefined ? { serializers: logSerializers } : undefined)
  })
  const observer = new Observer(app, log, clock)
  const threads = new Threads(settings, clock, observer)
  const registry = new Registry(settings, threads)
  const hooks = new Hooks(observer)
  const propagation = new Propagation(observer)
  const intake = new Intake(settings, clock, { registry, backends, observer, propagation })
  const changes = new Changes(backend, clock)
  const dispatch = new Dispatch(settings, clock, { backends, registry, hooks, propagation, observer, changes })
  const control = new Control(backend, dispatch, observer, changes)
  const bulk = new Bulk(intake, control, clock)
  const flows = new Flows(intake, control, backends)
  const schedules = new Schedules({ settings, registry, intake, backends, observer, clock, cron: new Cron() })
  const deadLetters = new DeadLetters({ backends, control, registry, runner: dispatch.runner, observer, maxPayloadBytes: settings.maxPayloadBytes })
  const stats = new StatsReader(settings, backend, registry, dispatch)
  const gate = new Gate(backends.volatile, clock, observer, settings.maxHold)
  const drain = new Drain(settings, clock, { backends, intake, dispatch, observer, changes })
  const health = new HealthCheck(settings, { backends, control, intake, dispatch, drain, observer })
  const door = backend.durable ? new DurableDoor({ intake, backends, gate, observer, statusUrl: (id) => control.statusUrl(id) }) : undefined
  if (door !== undefined) control.cancelUnwritten = (id, detail) => door.cancel(id, detail)
  drain.onClosing(() => { deadLetters.close() })
  drain.onClosed(() => threads.close())
  drain.onClosed(() => { gate.close() })
  drain.onClosed(() => { observer.close() })
  return { backends, clock, observer, registry, hooks, propagation, intake, bulk, flows, schedules, dispatch, control, deadLetters, stats, gate, door, drain, health, threads }
}

function childLogger (app: FastifyInstance, options: object): FastifyBaseLogger {
  try {
    return app.log.child({}, options)
  } catch (cause) {
    throw Object.assign(new errors.BadOption('options.logLevel, options.logSerializers', 'what the logger understands', describe(cause).message), { cause })
  }
}

/** Every task is known: backends start, and jobs are taken. */
async function open (app: FastifyInstance, core: Core, { retention, maxHold, role }: Settings): Promise<void> {
  const { backends, dispatch, drain, intake, registry } = core
  const own = new BackgroundFacade(core, app)
  registry.close(backends)
  await core.threads.open()
  core.hooks.close()
  core.propagation.close()
  await backends.all.start(dispatch, {
    queues: registry.queues,
    retention,
    maxHold,
    policyOf: (task) => registry.find(task)?.policy,
    add: (task, payload) => own.add(task, payload),
    fire: (schedule, alive) => core.schedules.fire(schedule, alive),
    nextTime: (rule, after) => core.schedules.nextTime(rule, after)
  })
  if (role === 'producer') backends.retire()
  dispatch.open(registry.queues)
  drain.onClosed(listen())
  drain.onClosed(atExit(() => { drain.nameLost() }))
  intake.open()
}

const plugin: FastifyPluginAsync<BackgroundTasksOptions> = async function backgroundTasks (app, options) {
  if (app.hasDecorator('background')) throw new errors.AlreadyRegistered()
  const settings = resolveOptions(options)
  const core = build(app, settings)
  const { backends, clock, control, door, drain, gate, health, intake } = core

  const facades = new WeakMap<FastifyInstance, BackgroundFacade>()
  app.decorate('background', {
    // `this` is the instance that asks: tasks belong to the plugin that defines them.
    getter (this: FastifyInstance) {
      let facade = facades.get(this)
      if (facade === undefined) facades.set(this, facade = new BackgroundFacade(core, this))
      return facade as unknown as Background
    }
  })
  const waits = new Waits(control)
  drain.onClosing(() => { waits.endAll() })
  const parts = { intake, backends, gate, door, control, observer: core.observer, waits, maxWait: settings.maxWait, keyAge: settings.retention.completed.age }
  app.decorateReply('background', createStage(parts) as StageJob)
  app.decorateReply('accepted', createAccepted(parts) as unknown as AcceptJob<FastifyReply>)

  app.addHook('onError', (_request, reply, error, done) => {
    gate.failed(reply, error)
    done()
  })

  if (door !== undefined) {
    app.addHook('onSend', (_request, reply, payload, done) => {
      const sent = door.send(reply, payload)
      if (sent === undefined) done()
      return sent // Fastify goes on when it resolves
    })
  }

  addRoutes(app, settings, { registry: core.registry, clock, control, deadLetters: core.deadLetters, schedules: core.schedules, health, drain })

  app.addHook('onReady', async () => { await open(app, core, settings) })

  app.addHook('preClose', async () => {
    drain.begin()
    const keepAgain = keepNoConnections(app.server)
    // Registered now, this runs right after the server has closed and before every other onClose hook, whichever
    // plugin came first: jobs can use a database pool that another plugin closes.
    const { onClose } = app as { onClose?: (close: (instance: unknown, done: () => void) => void) => void }
    if (typeof onClose === 'function') onClose.call(app, (_instance, done) => {
      keepAgain()
      void drain.finish().then(done)
    })
  })
  // Where Fastify has no such door: later than we would like, but never left out.
  app.addHook('onClose', async () => { await drain.finish() })
}

/**
 * A connection whose answer has gone out is not kept any more, in a second on Node 20. The server's close would wait for
 * it as long as it was to be kept. Ending idle connections from here instead would cut answers that are read slowly.
 * Answers how to undo it: a server of the application's own may outlive it.
 */
function keepNoConnections (server: object): () => void {
  const none = { keepAliveTimeout: 1, keepAliveTimeoutBuffer: 0 }
  const before: Array<readonly [name: string, value: unknown]> = []
  for (const [name, value] of Object.entries(none)) {
    if (!(name in server)) continue
    before.push([name, Reflect.get(server, name)])
    Reflect.set(server, name, value)
  }
  return () => { for (const [name, value] of before) Reflect.set(server, name, value) }
}

/**
 * Background tasks for Fastify: `app.background`, `reply.background`, `reply.accepted`, and routes for status and
 * health.
 * @throws FST_BG_ALREADY_REGISTERED, FST_BG_BAD_OPTION, FST_BG_UNKNOWN_OPTION
 */
export const backgroundTasks: FastifyPluginAsync<BackgroundTasksOptions> = fp(plugin, {
  name: 'fastify-background-tasks',
  fastify: '5.x'
})
