// Thumbnails of one uploaded file. The payload names the file: a payload is JSON and small, an image is neither.

import { rm } from 'node:fs/promises'
import sharp from 'sharp'

const options = {
  // The same bytes give the same error: nothing to gain from a second attempt.
  attempts: 1,
  schema: {
    type: 'object',
    required: ['file', 'widths'],
    additionalProperties: false,
    properties: { file: { type: 'string' }, widths: { type: 'array', items: { type: 'integer' } } }
  }
}

export function defineMakeThumbnails (app) {
  return app.background.define('make-thumbnails', options, async ({ file, widths }, { signal, progress }) => {
    const thumbnails = []
    for (const wanted of widths) {
      // sharp cannot be interrupted, so a timeout or a shutdown is heard between two images.
      signal.throwIfAborted()
      const path = `${file}-${wanted}.webp`
      const { width, height, size } = await sharp(file).autoOrient().resize({ width: wanted }).webp().toFile(path)
      thumbnails.push({ width, height, bytes: size, path })
      progress({ done: thumbnails.length, of: widths.length })
    }
    // Only now: the upload of a job that failed stays for its replay.
    await rm(file)
    return { thumbnails }
  })
}
