// run.mjs SUITE BASE: runs the suite in the folder SUITE through the proxy at BASE, and prints for each test one line of
// JSON: its id, its kind, and `true` or what went wrong.
import path from 'node:path'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const [suite, base] = process.argv.slice(2)
const load = name => import(pathToFileURL(path.join(suite, name)).href)
const fetch = createRequire(path.join(suite, 'package.json'))('node-fetch')
const { runTests, getResults } = await load('client/runner.mjs')
const { default: sets } = await load('tests/index.mjs')

await runTests(sets, fetch, false, base)
const results = getResults()
for (const test of sets.flatMap(set => set.tests)) {
  if (test.browser_only) continue
  const result = results[test.id] === true ? true : String(results[test.id]?.[1])
  console.log(JSON.stringify({ id: test.id, kind: test.kind ?? 'required', result }))
}
