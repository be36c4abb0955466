/** `npm run capabilities`: writes what the backends can into the README. */
import { readFileSync, writeFileSync } from 'node:fs'
import { withCapabilities } from '../support/capabilities.ts'

writeFileSync('README.md', withCapabilities(readFileSync('README.md', 'utf8')))
