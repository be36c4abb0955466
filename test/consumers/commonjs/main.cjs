const Fastify = require('fastify')
const backgroundTasks = require('fastify-background-tasks')
const { manual } = require('fastify-background-tasks/testing')

async function main () {
  const jobs = manual()
  const app = Fastify()
  await app.register(backgroundTasks.default, { backend: jobs })
  app.background.define('greet', async ({ name }) => `hello ${name}`)
  await app.ready()
  console.log((await jobs.run('greet', { name: 'ada' })).result, backgroundTasks.backgroundTasks === backgroundTasks.default)
  await app.close()
}
main()
