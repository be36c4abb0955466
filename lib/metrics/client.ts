/** The part of prom-client that is used: any library with it will do. */

type Labels = Record<string, string>

/** What a metric is made from. */
export interface MetricConfig {
  name: string
  help: string
  labelNames: string[]
  /** The registry; without it, the client's own. */
  registers?: never[]
  /** From low to high. */
  buckets?: number[]
  /** Called at each scrape, before the value is read. */
  collect?: () => Promise<void>
}

/** A counter of prom-client, as far as it is used. */
export interface CounterLike {
  /** Adds to the series of these labels. */
  inc (labels: Labels, value: number): unknown
}

/** A gauge of prom-client, as far as it is used. */
export interface GaugeLike {
  /** Sets the series of these labels. */
  set (labels: Labels, value: number): unknown
}

/** A histogram of prom-client, as far as it is used. */
export interface HistogramLike {
  /** Adds an observation to the series of these labels. */
  observe (labels: Labels, value: number): unknown
  /** Shows the series before its first value. */
  zero? (labels: Labels): unknown
}

/** The part of prom-client that is used. */
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
