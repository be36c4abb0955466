/** What is asked, by whom, and when they leave: drawn from the seed alone, so that the same seed gives the same plan. */
import { chance } from '../chance.ts'
import { kindOf, kinds } from './handlers.ts'

export type Protocol = 'h1' | 'h1s' | 'h2' | 'h2s' | 'inject'
/** The client goes away when its request was written, its jobs were accepted, its headers came, its first bytes came. */
export type Leave = 'sent' | 'accepted' | 'headers' | 'data'
export type WhenName = 'handled' | 'success' | 'error' | 'always' | 'yes' | 'no' | 'below 400' | 'not aborted' | 'throws'

export interface Job {
  readonly when: WhenName | undefined
  readonly onAbort: 'run' | 'drop' | undefined
  /** A task, not a function. */
  readonly task: boolean
  /** Its body takes a few turns. */
  readonly slow: boolean
}

export interface Request {
  readonly n: number
  readonly client: string
  readonly kind: string
  /** Turns of the loop that the handler takes. */
  readonly turns: number
  /** Bytes, of a big body. */
  readonly size: number
  readonly jobs: readonly Job[]
  leave: Leave | undefined
  /** Asked by a client that stays, and answered to the end. */
  clean: boolean
}

/** One client with all its requests. */
export interface Unit {
  readonly client: string
  readonly protocol: Protocol
  readonly requests: readonly Request[]
  /** Ms, of a slow reader. */
  readonly pause: number
  /** Of a reset stream. */
  readonly code: number
}

interface Client {
  readonly protocols: readonly Protocol[]
  /** Requests, from and to. */
  readonly size: readonly [number, number]
  /** When it goes away; without it, it stays to the end. */
  readonly leaves?: readonly Leave[]
  /** What breaks one of its requests breaks the others. */
  readonly together?: boolean
  readonly slow?: boolean
  readonly only?: readonly string[]
}

const KB = 1024

export const clients: Readonly<Record<string, Client>> = {
  'keep-alive': { protocols: ['h1'], size: [2, 6] },
  'connection per request': { protocols: ['h1'], size: [1, 1] },
  pipelined: { protocols: ['h1'], size: [2, 6], together: true },
  'pipelined, leaves': { protocols: ['h1'], size: [2, 6], together: true, leaves: ['sent', 'accepted', 'data'] },
  'aborts before the answer': { protocols: ['h1'], size: [1, 1], leaves: ['sent', 'accepted', 'accepted'] },
  'aborts in mid-body': { protocols: ['h1'], size: [1, 1], leaves: ['headers', 'data'] },
  'half-close': { protocols: ['h1'], size: [1, 3], together: true, leaves: ['sent', 'accepted', 'data'] },
  reset: { protocols: ['h1'], size: [1, 3], together: true, leaves: ['sent', 'accepted', 'data'] },
  'slow reader': { protocols: ['h1', 'h1s'], size: [1, 2], together: true, slow: true },
  'half a body': { protocols: ['h1'], size: [1, 1], leaves: ['accepted'], only: ['posted body'] },
  TLS: { protocols: ['h1s'], size: [1, 4] },
  'TLS, aborts': { protocols: ['h1s'], size: [1, 1], leaves: ['accepted', 'headers', 'data'] },
  'HTTP/2': { protocols: ['h2', 'h2s'], size: [1, 8] },
  'HTTP/2 reset': { protocols: ['h2', 'h2s'], size: [1, 8], leaves: ['sent', 'accepted', 'headers', 'data'] },
  'HTTP/2 session destroy': { protocols: ['h2', 'h2s'], size: [1, 8], together: true, leaves: ['sent', 'accepted', 'headers', 'data'] },
  inject: { protocols: ['inject'], size: [1, 1] }
}

const whens: ReadonlyArray<WhenName | undefined> = [undefined, 'handled', 'success', 'error', 'always', 'always', 'yes', 'no', 'below 400', 'not aborted', 'throws']

class Dice {
  readonly #random: () => number

  constructor (seed: number) {
    this.#random = chance(seed)
  }

  between (from: number, to: number): number { return from + Math.floor(this.#random() * (to - from + 1)) }

  pick<T> (list: readonly T[]): T { return list[this.between(0, list.length - 1)] as T }
}

/** Clients with their requests, `total` requests or a few more. */
export function * planOf (seed: number, total: number): Generator<Unit, void> {
  const dice = new Dice(seed)
  // Each kind of client as often as it takes for all to send about as many requests.
  const names = Object.entries(clients).flatMap(([name, { size: [from, to] }]) => Array<string>(Math.round(18 / (from + to))).fill(name))
  for (let n = 0; n < total;) {
    const unit = unitOf(dice, dice.pick(names), n)
    n += unit.requests.length
    yield unit
  }
}

function unitOf (dice: Dice, client: string, first: number): Unit {
  const { protocols, size, leaves, slow = false, together = false, only } = clients[client] as Client
  const protocol = dice.pick(protocols)
  const able = only ?? Object.keys(kinds).filter((kind) => protocol !== 'inject' || !needsLeaver(kind))
  const leave = leaves && dice.pick(leaves)
  const requests = Array.from({ length: dice.between(...size) }, (_, index) => requestOf(dice, first + index, client, able, slow))
  // One of them makes the client leave; on connections of their own each does. No answer comes from or behind some.
  const [head] = requests as [Request]
  for (const request of together ? [head] : requests) request.leave = leave
  if (leave !== 'sent') {
    const stuck = requests.filter(({ kind }) => needsLeaver(kind))
    if (together && stuck.length > 0) head.leave = undefined
    for (const request of together ? stuck.slice(0, 1) : stuck) request.leave = 'accepted'
  }
  const isClean = (request: Request): boolean => request.leave === undefined && kindOf(request).breaks !== true
  for (const request of requests) request.clean = together ? requests.every(isClean) : isClean(request)
  return { client, protocol, requests, pause: slow ? dice.between(2, 12) : 0, code: dice.pick([2, 8]) }
}

function requestOf (dice: Dice, n: number, client: string, able: readonly string[], slow: boolean): Request {
  // A slow reader is one only where there is much to read.
  const kind = slow && dice.between(1, 4) === 1 ? 'big body' : dice.pick(able)
  const jobs = Array.from({ length: dice.pick([1, 1, 1, 2, 2, 3, 4]) }, (): Job => ({
    when: dice.pick(whens),
    onAbort: dice.pick([undefined, 'run', 'drop']),
    task: dice.between(1, 3) === 1,
    slow: dice.between(1, 3) === 1
  }))
  return { n, client, kind, turns: dice.pick([0, 1, 2, 5, 15]), size: (slow ? 4_096 : dice.between(32, 256)) * KB, jobs, leave: undefined, clean: true }
}

/** Without a client that leaves there is no end. */
function needsLeaver (kind: string): boolean {
  const { never, waits } = kindOf({ kind })
  return never === true || waits === true
}
