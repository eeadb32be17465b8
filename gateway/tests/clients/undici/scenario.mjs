// One scenario for Node: undici over HTTP/1.1, Node's own http2 over HTTP/2. See ../README.md.
// scenario.mjs URL 1|2
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import http2 from 'node:http2'

import { Agent, request } from 'undici'

const [url, version] = process.argv.slice(2)
const base = new URL(url)
const nobody = '/agents/nobody/invoke'

/** Asks by undici; a reply is `{ status, headers, body }`, its body a stream. */
function byUndici() {
  const dispatcher = new Agent({ headersTimeout: 60_000, bodyTimeout: 60_000 })
  return {
    async ask(path, body) {
      const options = { method: 'POST', body, dispatcher, headers: { 'content-type': 'application/json' } }
      const { statusCode, headers, body: stream } = await request(new URL(path, base), options)
      return { status: statusCode, headers, body: stream }
    },
    close: () => dispatcher.destroy(),
  }
}

/** Asks by Node's http2, all on one connection. */
function byHttp2() {
  const session = http2.connect(base.origin)
  return {
    ask(path, body) {
      return new Promise((resolve, reject) => {
        const stream = session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/json' })
        stream.setTimeout(60_000, () => stream.destroy(new Error('nothing came for a minute')))
        stream.on('error', reject)
        stream.on('response', (headers) => resolve({ status: headers[':status'], headers, body: stream }))
        stream.end(body)
      })
    },
    close: () => session.destroy(),
  }
}

async function whole(body) {
  const pieces = []
  for await (const piece of body) pieces.push(piece)
  return Buffer.concat(pieces)
}

async function* events(body) {
  let text = ''
  for await (const piece of body) {
    text += piece
    for (let at; (at = text.indexOf('\n\n')) >= 0; text = text.slice(at + 2)) {
      const event = text.slice(0, at)
      if (event.startsWith('data: ')) yield event.slice('data: '.length)
    }
  }
}

const client = version === '2' ? byHttp2() : byUndici()
const mount = base.pathname

const body = JSON.stringify({ input: 'Grüße' })
const answer = await client.ask(`${mount}/json`, body)
assert.equal(answer.status, 200)
assert.equal((await whole(answer.body)).toString(), body)
console.log('json')

let n = 0
const stream = await client.ask(`${mount}/sse`, '{"stream":true}')
assert.equal(stream.headers['content-type'], 'text/event-stream')
for await (const data of events(stream.body)) {
  assert.equal(data, String(n))
  n += 1
  await whole((await client.ask(`${mount}/seen`, '')).body)
}
assert.equal(n, 20)
console.log('sse')

const up = randomBytes(8 << 20)
const down = await client.ask(`${mount}/echo`, up)
assert.ok(up.equals(await whole(down.body)), 'echo: not the same bytes')
console.log('echo')

const problem = await client.ask(nobody, '{}')
assert.equal(problem.status, 404)
assert.equal(problem.headers['content-type'], 'application/problem+json')
assert.equal(problem.headers['x-switchyard-error'], 'unknown-agent')
assert.equal(JSON.parse(await whole(problem.body)).code, 'unknown-agent')
console.log('problem')

n = 0
const endless = await client.ask(`${mount}/endless`, '{}')
for await (const _ of events(endless.body)) {
  n += 1
  if (n === 2) break // Ends the iteration, which destroys the body.
}
assert.equal(n, 2)
// Over HTTP/2 the connection lives on: it is the stream that was left.
await whole((await client.ask(`${mount}/left`, '')).body)
console.log('left')
client.close()
