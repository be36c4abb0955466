/** What can be measured, and with which settings. */
import type { BackgroundSettings } from '../http/background.ts'
import type { InjectSettings } from '../http/inject.ts'
import type { KeepAliveSettings } from '../http/keep-alive.ts'
import type { HttpOverloadSettings } from '../http/overload.ts'
import type { CostSettings } from './cost.ts'
import type { HeapSettings } from './heap.ts'
import type { OverloadSettings } from './overload.ts'
import type { TimeoutsSettings } from './timeouts.ts'
import type { TurnsSettings } from './turns.ts'
import type { BacklogSettings } from '../store/backlog.ts'
import type { DelaySettings } from '../store/delay.ts'
import type { StoreJobsSettings } from '../store/jobs.ts'
import type { DurableRouteSettings } from '../store/route.ts'

export type Settings =
  | { readonly scenario: 'cost' } & CostSettings
  | { readonly scenario: 'turns' } & TurnsSettings
  | { readonly scenario: 'heap' } & HeapSettings
  | { readonly scenario: 'timeouts' } & TimeoutsSettings
  | { readonly scenario: 'overload' } & OverloadSettings
  | { readonly scenario: 'http/inject' } & InjectSettings
  | { readonly scenario: 'http/keep-alive' } & KeepAliveSettings
  | { readonly scenario: 'http/overload' } & HttpOverloadSettings
  | { readonly scenario: 'http/background' } & BackgroundSettings
  | { readonly scenario: 'store/jobs' } & StoreJobsSettings
  | { readonly scenario: 'store/backlog' } & BacklogSettings
  | { readonly scenario: 'store/delay' } & DelaySettings
  | { readonly scenario: 'store/route' } & DurableRouteSettings

export type Result = Readonly<Record<string, number>>

export interface Prepared {
  /** Once. */
  readonly measure: () => Promise<Result>
  /** Takes away what would outlive the process. */
  readonly close?: () => Promise<void>
}

/** Imports that scenario alone, and warms it up in this process. */
export async function prepare (settings: Settings): Promise<Prepared> {
  switch (settings.scenario) {
    case 'cost': return (await import('./cost.ts')).prepare(settings)
    case 'turns': return (await import('./turns.ts')).prepare(settings)
    case 'heap': return (await import('./heap.ts')).prepare(settings)
    case 'timeouts': return (await import('./timeouts.ts')).prepare(settings)
    case 'overload': return (await import('./overload.ts')).prepare(settings)
    case 'http/inject': return (await import('../http/inject.ts')).prepare(settings)
    case 'http/keep-alive': return (await import('../http/keep-alive.ts')).prepare(settings)
    case 'http/background': return (await import('../http/background.ts')).prepare(settings)
    case 'http/overload': return (await import('../http/overload.ts')).prepare(settings)
    case 'store/jobs': return (await import('../store/jobs.ts')).prepare(settings)
    case 'store/backlog': return (await import('../store/backlog.ts')).prepare(settings)
    case 'store/delay': return (await import('../store/delay.ts')).prepare(settings)
    case 'store/route': return (await import('../store/route.ts')).prepare(settings)
  }
}
