// An agent to put behind Switchyard: this file is yours to change, serving.mjs beside it keeps the contract.
//
// It answers with any OpenAI-compatible model, or without one says the input back, and remembers each session in Redis.
import { setTimeout as sleep } from 'node:timers/promises'

import OpenAI, { APIConnectionError, APIConnectionTimeoutError, RateLimitError } from 'openai'
import { createClient } from 'redis'

import { log, Problem, serve, setting } from './serving.mjs'

const TURNS = 20 // what a session remembers: so many messages,
const TURN = 4_000 // each so many characters long,
const SESSION_SECONDS = 3600 // for so long after the last one
const REDIS_MS = 500 // memory isn't worth waiting longer for
const RECONNECT_MS = 500
const MODEL_TIMEOUT_MS = 120_000 // until the model's answer begins

const NAME = setting('AGENT_NAME', String, 'node')
const MODEL = setting('AGENT_MODEL', String, 'gpt-4o-mini')
const BASE_URL = setting('OPENAI_BASE_URL', String)
const API_KEY = setting('OPENAI_API_KEY', String)
const REDIS_URL = setting('REDIS_URL', String)
const WORD_MS = 1000 * setting('AGENT_WORD_SECONDS', Number, 0.02) // for each word of an answer without a model

/** The last messages of each session, in Redis, so that any replica can go on. */
class Memory {
  constructor(url) {
    const socket = { connectTimeout: REDIS_MS, reconnectStrategy: RECONNECT_MS }
    // Without a queue a command fails at once while Redis is away, instead of waiting for it.
    this.redis = createClient({ url, socket, disableOfflineQueue: true })
    // It connects again by itself, and reports each try.
    let away = false
    this.redis.on('error', (error) => {
      if (!away) log('redis is away', error)
      away = true
    })
    this.redis.on('ready', () => (away = false))
    this.redis.connect().catch(() => {})
  }

  /** The client, for commands that are given up after a while. */
  get soon() {
    return this.redis.withAbortSignal(AbortSignal.timeout(REDIS_MS))
  }

  /** The messages so far; undefined when they can't be had. */
  async recall(session) {
    try {
      return (await this.soon.lRange(key(session), -TURNS, -1)).map((message) => JSON.parse(message))
    } catch (error) {
      log('nothing is remembered', error)
    }
  }

  async remember(session, ...messages) {
    const short = messages.map((message) => JSON.stringify({ ...message, content: message.content.slice(0, TURN) }))
    try {
      const commands = this.soon.multi().rPush(key(session), short).lTrim(key(session), -TURNS, -1)
      await commands.expire(key(session), SESSION_SECONDS).exec()
      return true
    } catch (error) {
      log('nothing is remembered', error)
      return false
    }
  }
}

const key = (session) => `${NAME}:session:${session}`

const memory = REDIS_URL && new Memory(REDIS_URL)
// A server of one's own may want no key, but the SDK does.
const model = (BASE_URL || API_KEY) && new OpenAI({ apiKey: API_KEY ?? 'none', timeout: MODEL_TIMEOUT_MS })

/** The work, as events. The last is `final`: it is the whole JSON reply, too. A client that leaves aborts `signal`. */
async function* work(ask, { onward, signal }) {
  const remembers = memory && ask.session_id
  const before = remembers ? await memory.recall(ask.session_id) : undefined
  if (remembers && !before) yield ['step', { name: 'memory', note: "what was said before can't be had" }]
  yield ['step', { name: model ? 'model' : 'answer' }]
  const question = { role: 'user', content: ask.input }
  let [output, usage] = ['', null]
  for await (const [text, counted] of answer([...(before ?? []), question], onward, signal)) {
    output += text
    usage = counted ?? usage
    if (text) yield ['token', { text }]
  }
  const reply = { role: 'assistant', content: output }
  const kept = before && (await memory.remember(ask.session_id, question, reply))
  const place = memory ? (kept ? 'redis' : 'down') : 'off'
  const metadata = { model: model ? MODEL : 'none', usage, memory: ask.session_id ? place : null }
  yield ['final', { output, metadata: { ...metadata, remembered: before?.length ?? 0 } }]
}

/** Pieces of text, and with the last what was counted. */
async function* answer(messages, onward, signal) {
  if (!model) {
    for (const [word] of `You said: ${messages.at(-1).content}`.matchAll(/\S+\s*/g)) {
      await sleep(WORD_MS, undefined, { signal })
      yield [word]
    }
    return
  }
  const body = { model: MODEL, messages, stream: true, stream_options: { include_usage: true } }
  let begun = false
  try {
    // The signal closes the stream: the model stops, too.
    const chunks = await model.chat.completions.create(body, { headers: onward, signal })
    for await (const { choices, usage } of chunks) {
      begun = true
      yield [choices[0]?.delta.content ?? '', usage ?? undefined]
    }
  } catch (error) {
    throw signal.aborted ? error : told(error, begun)
  }
}

/** What the client is told. The server's own words may hold the prompt: they are neither told nor logged. */
function told(error, begun) {
  log('the model failed', `${error.constructor.name}, status ${error.status ?? 'none'}`)
  if (begun) return new Problem(502, 'model-broke-off', "the model's answer broke off")
  if (error instanceof RateLimitError)
    return new Problem(503, 'model-busy', 'the model server has too much to do', { 'retry-after': '1' })
  if (error instanceof APIConnectionTimeoutError)
    return new Problem(504, 'model-timeout', 'the model server took too long')
  if (error instanceof APIConnectionError)
    return new Problem(502, 'model-unreachable', "the model server can't be reached")
  return new Problem(502, 'model-failed', 'the model server answered with an error')
}

const checks = {}
if (memory) checks.redis = () => memory.soon.ping()
if (model) checks.model = () => model.models.list({ maxRetries: 0 })
serve(NAME, work, checks)
