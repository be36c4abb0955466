// The service of the demo and of `npm start`: signups with a welcome mail, images with thumbnails, partners to keep in
// step. Whatever differs from one place to the next comes in as an option; nothing here reads the environment.

import multipart from '@fastify/multipart'
import Fastify from 'fastify'
import backgroundTasks from 'fastify-background-tasks'
import { authorizeBy } from './authorize.js'
import imageRoutes from './routes/images.js'
import partnerRoutes from './routes/partners.js'
import signupRoutes from './routes/signup.js'
import { defineMakeThumbnails } from './tasks/make-thumbnails.js'
import { defineSendWelcome } from './tasks/send-welcome.js'
import { defineSyncPartner } from './tasks/sync-partner.js'

/**
 * smtp: { host, port } · partners: { [name]: base URL } · folder: for uploads and thumbnails
 * adminToken: lets its holders list and steer jobs · retryDelay: first step of the backoff in ms · logger: as for Fastify
 */
export async function buildApp ({ smtp, partners, folder, adminToken, retryDelay = 1_000, logger = true }) {
  const app = Fastify({ logger })

  await app.register(backgroundTasks, {
    concurrency: 5,
    routes: { admin: true },
    authorize: authorizeBy(adminToken),
    redact: ['payload.to', 'payload.name'],
    defaults: { backoff: { type: 'exponential', delay: retryDelay } }
  })
  await app.register(multipart, { limits: { files: 1, fileSize: 10 * 1024 * 1024 } })

  const sendWelcome = defineSendWelcome(app, smtp)
  const makeThumbnails = defineMakeThumbnails(app)
  defineSyncPartner(app, partners)

  app.register(signupRoutes, { sendWelcome })
  app.register(imageRoutes, { makeThumbnails, folder })
  app.register(partnerRoutes, { partners })
  return app
}
