export default async function greet (app) {
  app.background.define('greet', {
    schema: { type: 'object', required: ['name'], properties: { name: { type: 'string' } } }
  }, async ({ name }) => `hello ${name}`)
}
