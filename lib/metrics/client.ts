/** The part of prom-client that is used: any library with it will do. */

type Labels = Record<string, string>

export interface MetricConfig {
  name: string
  help: string
  labelNames: string[]
  /** The registry; without it, the client's own. */
  registers?: never[]
  buckets?: number[]
  /** Called at each scrape, before the value is read. */
  collect?: () => Promise<void>
}

export interface CounterLike {
  inc (labels: Labels, value: number): unknown
}

export interface GaugeLike {
  set (labels: Labels, value: number): unknown
}

export interface HistogramLike {
  observe (labels: Labels, value: number): unknown
  /** Shows the series before its first value. */
  zero? (labels: Labels): unknown
}

export interface MetricsClient {
  Counter: new (config: MetricConfig) => CounterLike
  Gauge: new (config: MetricConfig) => GaugeLike
  Histogram: new (config: MetricConfig) => HistogramLike
}

/** Labels with as many values as there are names in the code; a name from elsewhere must not become a series each. */
export class Names {
  readonly #known = new Set<string>()
  readonly #most: number

  constructor (most: number) {
    this.#most = most
  }

  /** The name itself, or `other` for names beyond the first so many. */
  of (name: string): string {
    if (this.#known.has(name)) return name
    if (this.#known.size >= this.#most) return 'other'
    this.#known.add(name)
    return name
  }
}
