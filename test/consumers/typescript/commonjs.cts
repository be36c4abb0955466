import Fastify = require('fastify')
import backgroundTasks = require('fastify-background-tasks')

async function main (): Promise<void> {
  const app = Fastify()
  await app.register(backgroundTasks.default)
  await app.ready()
  console.log(await (await app.background.add(async () => 'from CommonJS')).finished())
  await app.close()
}
void main()
