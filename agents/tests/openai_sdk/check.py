"""One scenario of the official SDK against the scripted model server: see ../it/openai_sdk.rs.

    check.py SCENARIO URL

The SDK parses leniently: a member that is missing is noticed only by whoever reads it. `strict` validates each object
anew by the SDK's own types, so that a script of ours that lacks one fails here.
"""

import json
import sys

import openai
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

MODEL = "gpt-4o-mini"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Which?"}]}
COUNTED = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def strict(thing):
    """The object, checked by its own type."""
    return type(thing).model_validate_json(json.dumps(thing.to_dict(mode="json")))


def expect(seen, wanted):
    if seen != wanted:
        sys.exit(f"{seen!r} instead of {wanted!r}")


def streamed(client, **more):
    """All chunks of a stream."""
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = [strict(chunk) for chunk in client.chat.completions.create(**ASK, **options, **more)]
    for chunk in chunks:
        expect((type(chunk), chunk.object, chunk.model), (ChatCompletionChunk, "chat.completion.chunk", MODEL))
        expect(chunk.id, chunks[0].id)
    return chunks


def counts(usage):
    return {name: getattr(usage, name) for name in COUNTED}


def models(client):
    expect([strict(model).id for model in client.models.list()], [MODEL])


def answer(client):
    reply = strict(client.chat.completions.create(**ASK))
    expect((type(reply), reply.object, reply.model), (ChatCompletion, "chat.completion", MODEL))
    choice = reply.choices[0]
    expect((choice.message.role, choice.message.content, choice.finish_reason), ("assistant", "This one.", "stop"))
    expect(counts(reply.usage), COUNTED)


def stream(client):
    chunks = streamed(client)
    expect(chunks[0].choices[0].delta.role, "assistant")
    expect("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), "This one.")
    expect([c.choices[0].finish_reason for c in chunks if c.choices], [None, None, None, "stop"])


def usage(client):
    *others, last = streamed(client)
    expect((last.choices, counts(last.usage)), ([], COUNTED))
    expect([chunk.usage for chunk in others], [None] * len(others))


def bytewise(client):
    stream(client)


def tools(client):
    """Two calls, each in pieces, put together by the SDK."""
    function = {"name": "look", "strict": True, "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": function}]
    chunks = streamed(client, tools=tools)
    pieces = [call for chunk in chunks if chunk.choices for call in chunk.choices[0].delta.tool_calls or []]
    expect([piece.index for piece in pieces], [0, 0, 1, 1])
    with client.chat.completions.stream(**ASK, tools=tools) as events:
        choice = strict(events.get_final_completion()).choices[0]
    expect(choice.finish_reason, "tool_calls")
    calls = [(call.id, call.type, call.function.name, call.function.arguments) for call in choice.message.tool_calls]
    expect(calls, [("c0", "function", "look", '{"at": "here"}'), ("c1", "function", "look", '{"at": "there"}')])


class Choice(BaseModel):
    which: str
    sure: bool


def structured(client):
    reply = client.chat.completions.parse(**ASK, response_format=Choice)
    expect(reply.choices[0].message.parsed, Choice(which="this one", sure=True))
    with client.chat.completions.stream(**ASK, response_format=Choice) as events:
        final = events.get_final_completion()
    expect(final.choices[0].message.parsed, Choice(which="this one", sure=True))


def busy(client):
    """The SDK waits as long as the reply says, and asks again."""
    answer(client)


def still_busy(client):
    try:
        client.with_options(max_retries=0).chat.completions.create(**ASK)
    except openai.RateLimitError as error:
        expect((error.status_code, error.response.headers["retry-after"]), (429, "1"))
        expect((error.code, error.type), ("rate_limit_exceeded", "requests"))
        return
    sys.exit("no error")


def refused(client):
    try:
        client.chat.completions.create(**ASK)
    except openai.BadRequestError as error:
        told = (error.status_code, error.type, error.param, error.code)
        expect(told, (400, "invalid_request_error", "messages", "context_length_exceeded"))
        expect(error.body["message"], "too long")
        return
    sys.exit("no error")


def broken(client):
    """A stream that is cut is an error, and not a short answer."""
    try:
        streamed(client)
    except openai.APIError:
        return
    except Exception as error:  # what is below the SDK may tell it in its own words
        expect("incomplete" in str(error) or "closed" in str(error), True)
        return
    sys.exit("no error")


if __name__ == "__main__":
    scenario, url = sys.argv[1:]
    globals()[scenario](OpenAI(base_url=url, api_key="sk-test", timeout=60))
    print("as expected")
