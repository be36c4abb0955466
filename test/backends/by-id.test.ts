/** The index of the memory backend, against a sorted Map. */
import fc from 'fast-check'
import { test } from 'tap'
import { ById } from '../../lib/backends/memory/by-id.ts'
import { seed } from '../support/seed.ts'

fc.configureGlobal({ seed })

interface Item { readonly id: string, readonly order: number, at: number }

const item = (order: number): Item => ({ id: String(order).padStart(6, '0'), order, at: -1 })

test('an index finds, lists and forgets like a sorted Map, in whatever order its entries come and go', async (t) => {
  fc.assert(fc.property(fc.array(fc.integer({ min: 0, max: 400 }), { maxLength: 300 }), fc.integer({ min: 0, max: 400 }), (steps, probe) => {
    const index = new ById<Item>()
    const model = new Map<number, Item>()
    for (const order of steps) {
      const known = model.get(order)
      if (known === undefined) {
        const added = item(order)
        model.set(order, added)
        index.add(added)
      } else {
        model.delete(order)
        index.delete(known)
      }
    }
    const sorted = [...model.values()].sort((a, b) => a.order - b.order)
    const { id } = item(probe)
    return JSON.stringify([...index.after(undefined)]) === JSON.stringify(sorted) &&
      JSON.stringify([...index.after(id)]) === JSON.stringify(sorted.filter(({ order }) => order > probe)) &&
      index.get(id) === model.get(probe)
  }))
  t.pass('held')
})

test('an index of many entries stays findable while most of them leave', async (t) => {
  const index = new ById<Item>()
  const items = Array.from({ length: 20_000 }, (_, order) => item(order))
  for (const each of items) index.add(each)
  const staying = (order: number): boolean => order === 3 || order % 7 === 0
  for (const each of items) if (!staying(each.order)) index.delete(each)
  t.equal(items.filter(({ id, order }) => (index.get(id) !== undefined) !== staying(order)).length, 0)
  t.equal([...index.after(undefined)].length, items.filter(({ order }) => staying(order)).length)
})

test('an entry that nobody asks for by its id never has one made', async (t) => {
  let made = 0
  const lazy = (order: number) => ({ order, at: -1, get id () { made++; return String(order) } })
  const index = new ById<ReturnType<typeof lazy>>()
  const entries = Array.from({ length: 5_000 }, (_, order) => lazy(order))
  for (const entry of entries) index.add(entry)
  for (const entry of entries.slice(0, 4_000)) index.delete(entry)
  t.equal([...index.after(undefined)].length, 1_000)
  t.equal(made, 0)
})
