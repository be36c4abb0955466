/** Of tap's loaders the one for TypeScript alone: a program that is no test needs no other, and each costs it time. */
export const typescriptLoader = process.execArgv.filter((arg) => !/mock|processinfo/.test(arg))
