// POST /images?width=160&width=800 takes one image (multipart/form-data), saves it and leaves the thumbnails to a job.

import { randomUUID } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'

const schema = {
  querystring: {
    type: 'object',
    properties: {
      width: {
        type: 'array',
        items: { type: 'integer', minimum: 16, maximum: 4_000 },
        minItems: 1,
        maxItems: 4,
        uniqueItems: true,
        default: [160, 800]
      }
    }
  }
}

export default async function imageRoutes (app, { makeThumbnails, folder }) {
  app.post('/images', { schema }, async (request, reply) => {
    const upload = await request.file()
    if (!upload) return reply.code(400).send({ message: 'the form holds no file' })

    // A name of our own: the client's may hold a path.
    const file = join(folder, randomUUID())
    try {
      await pipeline(upload.file, createWriteStream(file))
      if (upload.file.truncated) throw new app.multipartErrors.RequestFileTooLargeError()
      const job = reply.background(makeThumbnails, { file, widths: request.query.width })
      return reply.code(202).header('location', job.statusUrl).send({ jobId: job.id, statusUrl: job.statusUrl })
    } catch (error) {
      await rm(file, { force: true })
      throw error
    }
  })
}
