/** The seed of random tests: the same each time, so that a red run is about the change. `TEST_SEED=7 npm test` takes another. */
export const seed = Number(process.env.TEST_SEED ?? 20261122)
