import 'reflect-metadata'
import { Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { FastifyAdapter } from '@nestjs/platform-fastify'
import backgroundTasks from 'fastify-background-tasks'

class AppModule {}
Module({})(AppModule)

const app = await NestFactory.create(AppModule, new FastifyAdapter(), { logger: false })
await app.register(backgroundTasks)
const { background } = app.getHttpAdapter().getInstance()
const greet = background.define('greet', async ({ name }) => `hello ${name}`)
await app.init()
await app.getHttpAdapter().getInstance().ready()
console.log(await (await background.add(greet, { name: 'ada' })).finished())
await app.close()
