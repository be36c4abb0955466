/** When a schedule's next time is. Patterns are croner's, an optional peer that is loaded with the first of them. */
import { describe } from '../describe.ts'
import { errors } from '../errors.ts'
import { importPeer } from '../peer.ts'
import type { ScheduleRule } from '../schedule.ts'

/** The part of croner that is used. */
interface Pattern { nextRun (after: Date): Date | null }
type PatternMaker = new (pattern: string, options: { timezone: string, paused: true }) => Pattern

export class Cron {
  #maker: PatternMaker | undefined
  readonly #patterns = new Map<string, Pattern>()

  /** Whether `next` can be asked about this rule. */
  knows (rule: ScheduleRule): boolean {
    return rule.pattern === null || this.#maker !== undefined
  }

  /** @throws FST_BG_PEER_MISSING */
  async load (): Promise<void> {
    this.#maker ??= (await importPeer('a schedule with a pattern', 'croner', () => import('croner'))).Cron
  }

  /**
   * The first time after an instant, in epoch ms; undefined: there is none. Local times that a change of the clocks leaves
   * out come when the gap ends, those that it repeats once.
   * @throws FST_BG_BAD_OPTION
   */
  next (rule: ScheduleRule, after: number, where = 'pattern'): number | undefined {
    const { pattern, every, startDate, endDate } = rule
    const from = startDate === null ? after : Math.max(after, startDate - 1)
    const time = pattern === null ? nextMultiple(every as number, startDate ?? 0, from) : this.#pattern(pattern, rule.tz, where).nextRun(new Date(from))?.getTime()
    return time === undefined || (endDate !== null && time > endDate) ? undefined : time
  }

  #pattern (pattern: string, tz: string, where: string): Pattern {
    const key = `${tz} ${pattern}`
    let made = this.#patterns.get(key)
    if (made === undefined) {
      try {
        made = new (this.#maker as PatternMaker)(pattern, { timezone: tz, paused: true })
      } catch (cause) {
        throw new errors.BadOption(where, 'a cron pattern', `${JSON.stringify(pattern.slice(0, 80))}: ${describe(cause).message}`)
      }
      this.#patterns.set(key, made)
    }
    return made
  }
}

/** Counted from `base`, so that processes agree, and a restart postpones nothing. */
function nextMultiple (every: number, base: number, after: number): number {
  return base + (Math.floor((after - base) / every) + 1) * every
}
