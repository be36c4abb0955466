import { createApp } from './app.ts'
import type { Done, Subject } from './index.ts'

export async function create (done: Done): Promise<Subject> {
  const { background } = await createApp()
  return {
    fill (n, mixed) {
      for (let i = 0; i < n; i++) void background.add(async () => { done(i) }, mixed ? { priority: i % 10 } : undefined)
    },
    pause: () => background.pause(),
    resume: () => background.resume()
  }
}
