"""An agent to put behind Switchyard: this file is yours to change, serving.py beside it keeps the contract.

It answers with any OpenAI-compatible model, or without one says the input back, and remembers each session in Redis.
"""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio as redis
from openai import APIConnectionError, APITimeoutError, AsyncOpenAI, OpenAIError, RateLimitError, Timeout
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from serving import Ask, Event, Problem, application, serve, setting

TURNS = 20  # what a session remembers: so many messages,
TURN = 4_000  # each so many characters long,
SESSION_SECONDS = 3600  # for so long after the last one
REDIS_SECONDS = 0.5  # memory isn't worth waiting longer for
MODEL_TIMEOUT = Timeout(60, connect=5)  # between two pieces of an answer

NAME = setting("AGENT_NAME", str, "fastapi")
MODEL = setting("AGENT_MODEL", str, "gpt-4o-mini")
BASE_URL = setting("OPENAI_BASE_URL", str, None)
API_KEY = setting("OPENAI_API_KEY", str, None)
REDIS_URL = setting("REDIS_URL", str, None)
WORD_SECONDS = setting("AGENT_WORD_SECONDS", float, 0.02)  # for each word of an answer without a model

Message = dict[str, str]
log = logging.getLogger("agent")


class Memory:
    """The last messages of each session, in Redis, so that any replica can go on. None without Redis."""

    def __init__(self, url: str):
        clocks = {"socket_timeout": REDIS_SECONDS, "socket_connect_timeout": REDIS_SECONDS}
        self.redis = redis.from_url(url, decode_responses=True, retry=Retry(NoBackoff(), 0), **clocks)

    async def recall(self, session: str) -> list[Message] | None:
        """The messages so far; None when they can't be had."""
        try:
            return [json.loads(message) for message in await self.redis.lrange(key(session), -TURNS, -1)]
        except redis.RedisError as error:
            log.warning("nothing is remembered: %s", error)
            return None

    async def remember(self, session: str, *messages: Message) -> bool:
        short = [json.dumps({**message, "content": message["content"][:TURN]}) for message in messages]
        try:
            async with self.redis.pipeline(transaction=True) as commands:
                commands.rpush(key(session), *short).ltrim(key(session), -TURNS, -1)
                await commands.expire(key(session), SESSION_SECONDS).execute()
            return True
        except redis.RedisError as error:
            log.warning("nothing is remembered: %s", error)
            return False


def key(session: str) -> str:
    return f"{NAME}:session:{session}"


memory = Memory(REDIS_URL) if REDIS_URL else None
# A server of one's own may want no key, but the SDK does.
model = AsyncOpenAI(api_key=API_KEY or "none", timeout=MODEL_TIMEOUT) if BASE_URL or API_KEY else None


async def work(ask: Ask) -> AsyncIterator[Event]:
    """The work, as events. The last is `final`: it is the whole JSON reply, too. A client that leaves cancels it."""
    remembers = memory and ask.session_id
    before = await memory.recall(ask.session_id) if remembers else None
    if remembers and before is None:
        yield "step", {"name": "memory", "note": "what was said before can't be had"}
    yield "step", {"name": "model" if model else "answer"}
    question = {"role": "user", "content": ask.input}
    output, usage = "", None
    async for text, counted in answer([*(before or []), question], ask.onward):
        output, usage = output + text, counted or usage
        if text:
            yield "token", {"text": text}
    reply = {"role": "assistant", "content": output}
    kept = before is not None and await memory.remember(ask.session_id, question, reply)
    place = ("redis" if kept else "down") if memory else "off"
    metadata: dict[str, Any] = {"model": MODEL if model else "none", "usage": usage}
    metadata |= {"memory": place if ask.session_id else None, "remembered": len(before or [])}
    yield "final", {"output": output, "metadata": metadata}


async def answer(messages: list[Message], onward: dict[str, str]) -> AsyncIterator[tuple[str, dict[str, Any] | None]]:
    """Pieces of text, and with the last what was counted."""
    if model is None:
        for word in re.findall(r"\S+\s*", f"You said: {messages[-1]['content']}"):
            await asyncio.sleep(WORD_SECONDS)
            yield word, None
        return
    options = {"stream": True, "stream_options": {"include_usage": True}}
    begun = False
    try:
        chunks = await model.chat.completions.create(model=MODEL, messages=messages, extra_headers=onward, **options)
        async with chunks:  # closed when the work is cancelled: the model stops, too
            async for chunk in chunks:
                begun = True
                usage = chunk.usage.model_dump(exclude_none=True) if chunk.usage else None
                yield (chunk.choices[0].delta.content or "") if chunk.choices else "", usage
    except OpenAIError as error:
        raise told(error, begun) from error


def told(error: OpenAIError, begun: bool) -> Problem:
    """What the client is told. The server's own words may hold the prompt: they are neither told nor logged."""
    log.warning("the model failed: %s, status %s", type(error).__name__, getattr(error, "status_code", "none"))
    if begun:
        return Problem(502, "model-broke-off", "the model's answer broke off")
    if isinstance(error, RateLimitError):
        return Problem(503, "model-busy", "the model server has too much to do", {"retry-after": "1"})
    if isinstance(error, APITimeoutError):
        return Problem(504, "model-timeout", "the model server took too long")
    if isinstance(error, APIConnectionError):
        return Problem(502, "model-unreachable", "the model server can't be reached")
    return Problem(502, "model-failed", "the model server answered with an error")


if __name__ == "__main__":
    checks = {}
    if memory:
        checks["redis"] = memory.redis.ping
    if model:
        checks["model"] = model.models.list
    serve(application(NAME, work, checks))
