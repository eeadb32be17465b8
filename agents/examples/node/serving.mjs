// What an agent owes those in front of it (docs/agents.md), on node:http: keep it as it is.
//
// `POST /invoke` as JSON or events, probes, metrics; bounds on bodies, time and requests at once; refusals that the
// gateway may try elsewhere; work that stops when its client leaves; an end at SIGTERM that loses nothing.
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { constants } from 'node:os'

import prometheus from 'prom-client'

/** A line in the log. */
export const log = (what, error) => console.error(`agent: ${what}: ${error?.message ?? error}`)

/** A variable of the environment; an empty one counts as none. */
export function setting(name, kind, otherwise) {
  const text = process.env[name]
  if (!text) return otherwise
  const value = kind(text)
  if (!Number.isNaN(value)) return value
  console.error(`agent: ${name} is no ${kind.name.toLowerCase()}: ${JSON.stringify(text)}`)
  process.exit(1)
}

const MAX_BODY = 4 << 20 // bytes
const MAX_INPUT = 100_000 // characters: more than a model's context holds
const CHECK_MS = 2_000 // for one dependency's answer to /health
const GOOD_FOR_MS = 1_000 // a storm of probes is one look
const LAST_CALL_MS = 1_000 // after SIGTERM: who has not heard of it yet is refused, not reset
const LAST_BYTES_MS = 5_000 // for the last replies to reach their clients
const LOOK_MS = 100 // between two looks whether everything is finished
const KEEP_ALIVE_MS = 75_000 // longer than the gateway keeps an idle connection: it never meets one that was cut
const MAX_IN_FLIGHT = setting('AGENT_MAX_IN_FLIGHT', Number, 64)
const TIMEOUT_MS = 1000 * setting('AGENT_TIMEOUT', Number, 290) // below the gateway's, so that ours is told
const DRAIN_TIMEOUT_MS = 1000 * setting('AGENT_DRAIN_TIMEOUT', Number, 330)

const REQUEST_ID = /^[A-Za-z0-9._:/+=-]{1,128}$/
const SESSION_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/
const ONWARD = ['traceparent', 'tracestate', 'baggage']

prometheus.collectDefaultMetrics()
const requests = new prometheus.Counter({
  name: 'agent_requests_total',
  help: "Requests that ended, by how: ok, client-gone, or an error's code",
  labelNames: ['outcome'],
})
const inFlight = new prometheus.Gauge({ name: 'agent_in_flight', help: 'Requests that are being worked on' })
const seconds = new prometheus.Histogram({
  name: 'agent_request_duration_seconds',
  help: "From a request's head to its last byte",
})

/** An error as its client is told it (RFC 9457). */
export class Problem extends Error {
  constructor(status, code, detail, headers = {}) {
    super(detail)
    Object.assign(this, { status, code, headers })
  }

  body(agent, request_id) {
    const title = this.code[0].toUpperCase() + this.code.slice(1).replaceAll('-', ' ')
    const { status, code, message: detail } = this
    return { type: `urn:switchyard:agent:${code}`, title, status, detail, code, request_id, agent }
  }
}

const failed = new Problem(500, 'internal', 'the agent failed; its log says why')

/** The problem of an error; what isn't foreseen is logged, and not told. */
function problemOf(error) {
  if (error instanceof Problem) return error
  console.error(error)
  return failed
}

/** One request and its reply. It counts until the last byte; `signal` is aborted when the client leaves. */
class Exchange {
  outcome = 'client-gone'

  constructor(agent, request, response) {
    const given = request.headers['x-request-id'] ?? ''
    const id = REQUEST_ID.test(given) ? given : randomUUID()
    const leaving = new AbortController()
    Object.assign(this, { agent, request, response, id, leaving, signal: leaving.signal })
    response.on('close', () => leaving.abort())
  }

  reply(status, body, headers = {}) {
    const kind = status < 400 ? 'application/json' : 'application/problem+json'
    const text = Buffer.from(JSON.stringify(body))
    const own = { 'content-type': kind, 'content-length': text.length, 'x-request-id': this.id }
    this.response.writeHead(status, { ...own, ...headers }).end(text)
    this.request.resume() // what was not read would keep the connection from being used again
  }

  refuse(problem) {
    this.outcome = problem.code
    this.reply(problem.status, problem.body(this.agent, this.id), problem.headers)
  }

  /** What fails after the head is an event, too. */
  fail(error) {
    if (this.signal.aborted) return
    const problem = problemOf(error)
    if (!this.response.headersSent) return this.refuse(problem)
    this.outcome = problem.code
    this.response.end(frame('error', problem.body(this.agent, this.id)))
  }

  /** An event; waits while the client reads more slowly than we write. */
  async send(name, data) {
    if (!this.response.headersSent) {
      const plain = { 'cache-control': 'no-cache', 'x-accel-buffering': 'no', 'x-request-id': this.id }
      this.response.writeHead(200, { 'content-type': 'text/event-stream', ...plain })
    }
    if (!this.response.write(frame(name, data))) await once(this.response, 'drain', { signal: this.signal })
  }
}

const frame = (name, data) => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`

/** Reads the body, and stops at what is too large. */
async function read(request) {
  const pieces = []
  let length = 0
  for await (const piece of request.iterator({ destroyOnReturn: false })) {
    length += piece.length
    if (length > MAX_BODY) throw new Problem(413, 'body-too-large', `the body is over ${MAX_BODY >> 20} MiB`)
    pieces.push(piece)
  }
  return Buffer.concat(pieces).toString()
}

/** What the client asks; other members are left alone. */
function parse(text, headers) {
  const example = 'send a JSON object such as {"input": "your question"}'
  const wrong = (what) => new Problem(400, 'bad-request', `${what}; ${example}`)
  let body
  try {
    body = JSON.parse(text)
  } catch (error) {
    throw wrong(`the body is no JSON (${error.message})`)
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw wrong('the body is no JSON object')
  const { input, stream = false } = body
  const session_id = body.session_id ?? headers['x-session-id']
  if (typeof input !== 'string' || !input.trim()) throw wrong('`input` is no text')
  if (input.length > MAX_INPUT) throw wrong(`\`input\` has over ${MAX_INPUT} characters`)
  if (typeof stream !== 'boolean') throw wrong('`stream` is neither true nor false')
  const named = session_id !== undefined
  if (named && !SESSION_ID.test(session_id)) throw wrong(`the session's id doesn't match ${SESSION_ID}`)
  return { input, session_id, stream: stream || (headers.accept ?? '').includes('text/event-stream') }
}

/** Lets requests in, and counts them. */
class Door {
  inFlight = 0
  drainingSince = undefined

  /** Only what wasn't begun may say so: the gateway then tries another replica. */
  refusal() {
    const headers = { 'x-switchyard-not-begun': '1', 'retry-after': '1' }
    if (this.drainingSince !== undefined)
      return new Problem(503, 'draining', 'this replica is shutting down', { ...headers, connection: 'close' })
    if (this.inFlight >= MAX_IN_FLIGHT)
      return new Problem(503, 'at-limit', `${this.inFlight} requests are being worked on`, headers)
  }

  enter(exchange) {
    inFlight.set(++this.inFlight)
    const took = seconds.startTimer()
    exchange.response.on('close', () => {
      inFlight.set(--this.inFlight)
      requests.inc({ outcome: exchange.outcome })
      took()
    })
  }
}

/** Does the work for one request: as events, or in one piece. */
async function invoke(exchange, work) {
  const clock = setTimeout(() => {
    exchange.fail(new Problem(504, 'timeout', `it took longer than ${TIMEOUT_MS / 1000} s`))
    exchange.leaving.abort()
  }, TIMEOUT_MS)
  const { request, signal, id } = exchange
  try {
    const ask = parse(await read(request), request.headers)
    const onward = { 'x-request-id': id }
    for (const name of ONWARD) if (request.headers[name]) onward[name] = request.headers[name]
    let last
    for await (const [name, data] of work(ask, { onward, signal })) {
      signal.throwIfAborted()
      const whom = { agent: exchange.agent, request_id: id, session_id: ask.session_id ?? null }
      if (name === 'final') Object.assign(data.metadata, whom)
      if (ask.stream) await exchange.send(name, data)
      last = data
    }
    exchange.outcome = 'ok'
    if (ask.stream) exchange.response.end()
    else exchange.reply(200, last)
  } catch (error) {
    exchange.fail(error)
  } finally {
    clearTimeout(clock)
  }
}

/** Whether a promise is kept in time. */
async function works(name, check) {
  const late = new Promise((_, reject) => setTimeout(reject, CHECK_MS, new Error('no answer in time')).unref())
  try {
    await Promise.race([check(), late])
    return 'ok'
  } catch (error) {
    log(`${name} is down`, error.constructor.name)
    return 'down'
  }
}

/** A look at everything that the agent depends on: in parallel, and at most once a second. */
function health(checks) {
  let [seen, at] = [undefined, -Infinity]
  return () => {
    if (performance.now() - at >= GOOD_FOR_MS) {
      at = performance.now()
      const looks = Object.entries(checks).map(async ([name, check]) => [name, await works(name, check)])
      seen = Promise.all(looks).then(Object.fromEntries)
    }
    return seen
  }
}

/** What the probes answer: status, body and its type. */
function probesOf(door, look) {
  return {
    '/livez': async () => [200, 'ok\n'],
    '/readyz': async () => (door.drainingSince === undefined ? [200, 'ok\n'] : [503, 'draining\n']),
    '/health': async () => {
      const seen = await look()
      const down = Object.values(seen).includes('down')
      const body = JSON.stringify({ status: down ? 'degraded' : 'ok', checks: seen })
      return [down ? 503 : 200, body, 'application/json']
    },
    '/metrics': async () => [200, await prometheus.register.metrics(), prometheus.register.contentType],
  }
}

/** Serves an agent that does `work` until SIGTERM or Ctrl-C.
 *
 *  `checks`: for each thing that it depends on, a call that fails when that is away. */
export function serve(name, work, checks) {
  const door = new Door()
  const probes = probesOf(door, health(checks))
  const server = createServer((request, response) => {
    const exchange = new Exchange(name, request, response)
    const path = request.url.split('?')[0]
    const probe = Object.hasOwn(probes, path) ? probes[path] : undefined
    if (!probe && path !== '/invoke') return exchange.refuse(new Problem(404, 'not-found', `there is no ${path}`))
    const allowed = probe ? ['GET', 'HEAD'] : ['POST']
    if (!allowed.includes(request.method)) {
      const allow = allowed.join(', ')
      return exchange.refuse(new Problem(405, 'method-not-allowed', `${path} answers ${allow}`, { allow }))
    }
    if (probe) return probe().then(([status, body, kind = 'text/plain']) => {
      response.writeHead(status, { 'content-type': kind }).end(body)
    })
    const refusal = door.refusal()
    if (refusal) {
      requests.inc({ outcome: refusal.code })
      return exchange.refuse(refusal)
    }
    door.enter(exchange)
    invoke(exchange, work)
  })
  server.keepAliveTimeout = KEEP_ALIVE_MS
  server.on('error', (error) => {
    log("can't serve", error)
    process.exit(1)
  })
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => drain(server, door, signal))
  server.listen(setting('PORT', Number, 8000), setting('HOST', String, '127.0.0.1'), () => {
    const { address, port } = server.address()
    console.log(`listening on http://${address}:${port}`)
  })
}

/** What is begun is finished, what is new is refused, and then the process ends; at once at a second signal. */
function drain(server, door, signal) {
  if (door.drainingSince !== undefined) process.exit(128 + constants.signals[signal])
  door.drainingSince = performance.now()
  setInterval(() => {
    const drainingFor = performance.now() - door.drainingSince
    if (drainingFor > DRAIN_TIMEOUT_MS) process.exit(1)
    if (door.inFlight > 0 || drainingFor < LAST_CALL_MS || !server.listening) return
    server.close(() => process.exit(0))
    server.closeIdleConnections()
    setTimeout(() => process.exit(0), LAST_BYTES_MS)
  }, LOOK_MS)
}
