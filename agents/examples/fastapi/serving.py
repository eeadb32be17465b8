"""What an agent owes those in front of it (docs/agents.md), around FastAPI: keep it as it is.

`POST /invoke` as JSON or events, probes, metrics; bounds on bodies, time and requests at once; refusals that the
gateway may try elsewhere; work that stops when its client leaves; an end at SIGTERM that loses nothing.
"""

import asyncio
import json
import logging
import os
import re
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

log = logging.getLogger("agent")


def setting(name: str, kind: type, default: Any) -> Any:
    """A variable of the environment; an empty one counts as none."""
    text = os.environ.get(name) or None
    try:
        return default if text is None else kind(text)
    except ValueError:
        sys.exit(f"agent: {name} is no {kind.__name__}: {text!r}")


MAX_BODY = 4 << 20  # bytes
MAX_INPUT = 100_000  # characters: more than a model's context holds
CHECK_SECONDS = 2.0  # for one dependency's answer to /health
GOOD_FOR = 1.0  # seconds: a storm of probes is one look
LAST_CALL = 1.0  # seconds after SIGTERM: who has not heard of it yet is refused, not reset
LAST_BYTES = 5  # seconds for the last replies to reach their clients
KEEP_ALIVE = 75  # seconds: longer than the gateway keeps an idle connection: it never meets one that was cut
MAX_IN_FLIGHT = setting("AGENT_MAX_IN_FLIGHT", int, 64)
TIMEOUT = setting("AGENT_TIMEOUT", float, 290.0)  # seconds for a request: below the gateway's, so that ours is told
DRAIN_TIMEOUT = setting("AGENT_DRAIN_TIMEOUT", float, 330.0)

REQUESTS = Counter("agent_requests", "Requests that ended, by how: ok, client-gone, or an error's code", ["outcome"])
IN_FLIGHT = Gauge("agent_in_flight", "Requests that are being worked on")
SECONDS = Histogram("agent_request_duration_seconds", "From a request's head to its last byte")

REQUEST_ID = r"[A-Za-z0-9._:/+=-]{1,128}"
SESSION_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
ONWARD = ("x-request-id", "traceparent", "tracestate", "baggage")

Event = tuple[str, dict[str, Any]]


class Ask(BaseModel):
    """What a client sends; other members are left alone. `onward`: the headers for whatever is called."""

    model_config = ConfigDict(validate_assignment=True)

    input: str = Field(pattern=r"\S", max_length=MAX_INPUT)
    session_id: str | None = Field(None, pattern=SESSION_ID)
    stream: bool = False
    _onward: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def onward(self) -> dict[str, str]:
        return self._onward


Work = Callable[[Ask], AsyncIterator[Event]]


class Problem(Exception):
    """An error as its client is told it (RFC 9457)."""

    def __init__(self, status: int, code: str, detail: str, headers: dict[str, str] | None = None):
        super().__init__(detail)
        self.status, self.code, self.detail, self.headers = status, code, detail, headers or {}

    def body(self, request: Request) -> dict[str, Any]:
        """Counted under its code."""
        request.state.outcome = self.code
        names = {"type": f"urn:switchyard:agent:{self.code}", "title": self.code.replace("-", " ").capitalize()}
        about = {"code": self.code, "request_id": request.state.request_id, "agent": request.app.title}
        return {**names, "status": self.status, "detail": self.detail, **about}

    def response(self, request: Request) -> Response:
        headers = {"x-request-id": request.state.request_id, **self.headers}
        return JSONResponse(self.body(request), self.status, headers, "application/problem+json")


class Door:
    """Lets requests in, and counts them until their last byte. Pure ASGI around the whole application: it refuses
    before anything of a body is read, and a stream counts until it ends."""

    def __init__(self, app: FastAPI):
        self.app, self.in_flight, self.draining_since = app, 0, None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if re.fullmatch(REQUEST_ID, given) else str(uuid.uuid4())
        scope |= {"app": self.app, "state": {"request_id": request_id, "outcome": "client-gone"}}
        if (scope["method"], scope["path"]) != ("POST", "/invoke"):
            return await self.app(scope, receive, send)
        if refusal := self.refusal():
            REQUESTS.labels(refusal.code).inc()
            return await refusal.response(Request(scope))(scope, receive, send)
        began = time.monotonic()
        self.count(1)
        try:
            await self.bounded(scope, receive, send)
        finally:
            self.count(-1)
            REQUESTS.labels(scope["state"]["outcome"]).inc()
            SECONDS.observe(time.monotonic() - began)

    def count(self, change: int) -> None:
        self.in_flight += change
        IN_FLIGHT.set(self.in_flight)

    def refusal(self) -> Problem | None:
        # Only what wasn't begun may say so: the gateway then tries another replica.
        headers = {"x-switchyard-not-begun": "1", "retry-after": "1"}
        if self.draining_since is not None:
            return Problem(503, "draining", "this replica is shutting down", {**headers, "connection": "close"})
        if self.in_flight >= MAX_IN_FLIGHT:
            return Problem(503, "at-limit", f"{self.in_flight} requests are being worked on", headers)
        return None

    async def bounded(self, scope: Any, receive: Any, send: Any) -> None:
        read, begun = 0, False

        async def receive_some() -> Any:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY:
                raise HTTPException(413, f"the body is over {MAX_BODY >> 20} MiB")
            return message

        async def send_some(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(TIMEOUT):
                await self.app(scope, receive_some, send_some)
        except TimeoutError:
            problem = Problem(504, "timeout", f"it took longer than {TIMEOUT:g} s")
            response = problem.response(Request(scope))
            if begun:
                raise  # the connection is closed: half a reply never looks whole
            await response(scope, receive, send)


class Server(uvicorn.Server):
    """By itself uvicorn closes its listeners at SIGTERM. This one first finishes what was begun, refusing the rest."""

    def __init__(self, config: uvicorn.Config, door: Door):
        super().__init__(config)
        self.door = door

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self.door.draining_since is not None:
            os._exit(128 + sig)  # a second signal
        self.door.draining_since = time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end."""
        await super().on_tick(counter)
        if self.door.draining_since is None:
            return False
        draining_for = time.monotonic() - self.door.draining_since
        if draining_for > DRAIN_TIMEOUT:
            log.error("%d requests are cut off at the drain timeout", self.door.in_flight)
            os._exit(1)
        return self.door.in_flight == 0 and draining_for > LAST_CALL


class Health:
    """What the agent depends on: looked at in parallel, and at most once a second."""

    def __init__(self, checks: dict[str, Callable[[], Awaitable[Any]]]):
        self.checks, self.lock, self.seen, self.at = checks, asyncio.Lock(), {}, -GOOD_FOR

    async def look(self) -> dict[str, str]:
        async with self.lock:  # who comes during a look waits for it
            if time.monotonic() - self.at >= GOOD_FOR:
                words = await asyncio.gather(*map(self.word, self.checks))
                self.seen, self.at = dict(zip(self.checks, words, strict=True)), time.monotonic()
            return self.seen

    async def word(self, name: str) -> str:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self.checks[name]()
            return "ok"
        except Exception as error:  # whatever it is, it doesn't work
            log.warning("%s is down: %s", name, type(error).__name__)
            return "down"


def application(name: str, work: Work, checks: dict[str, Callable[[], Awaitable[Any]]]) -> Door:
    """An agent that does `work`. `checks`: for each thing it depends on, a call that fails when that is away."""
    app = FastAPI(title=name)
    door, health = Door(app), Health(checks)

    @app.post("/invoke")
    async def invoke(request: Request) -> Response:
        # Not a parameter of type Ask: FastAPI would look at the content type, which clients often get wrong.
        ask = Ask.model_validate_json(await request.body())
        ask.session_id = ask.session_id or request.headers.get("x-session-id")
        ask._onward = {name: request.headers[name] for name in ONWARD if name in request.headers}
        ask._onward["x-request-id"] = request.state.request_id
        headers = {"x-request-id": request.state.request_id}
        events = finished(request, ask, work(ask))
        if ask.stream or "text/event-stream" in request.headers.get("accept", ""):
            headers |= {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}
            return StreamingResponse(frames(request, events), 200, headers)
        reply = await unless_left(request, events)
        return Response(status_code=499) if reply is None else JSONResponse(reply, 200, headers)

    @app.get("/livez")
    async def livez() -> Response:
        return PlainTextResponse("ok\n")

    @app.get("/readyz")
    async def readyz() -> Response:
        draining = door.draining_since is not None
        return PlainTextResponse("draining\n" if draining else "ok\n", 503 if draining else 200)

    @app.get("/health")
    async def dependencies() -> Response:
        seen = await health.look()
        down = "down" in seen.values()
        return JSONResponse({"status": "degraded" if down else "ok", "checks": seen}, 503 if down else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), headers={"content-type": CONTENT_TYPE_LATEST})

    for error, handler in HANDLERS.items():
        app.add_exception_handler(error, handler)
    return door


async def finished(request: Request, ask: Ask, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
    """The events, the last one told whom it is for."""
    async for name, data in events:
        if name == "final":
            whom = {"request_id": request.state.request_id, "session_id": ask.session_id}
            data["metadata"] |= {"agent": request.app.title, **whom}
            request.state.outcome = "ok"
        yield name, data


async def frames(request: Request, events: AsyncIterator[Event]) -> AsyncIterator[str]:
    """Server-sent events. What fails after the head is an event, too."""
    try:
        async for name, data in events:
            yield f"event: {name}\ndata: {json.dumps(data)}\n\n"
    except Problem as problem:
        yield f"event: error\ndata: {json.dumps(problem.body(request))}\n\n"
    except Exception:
        log.exception("the work failed")
        yield f"event: error\ndata: {json.dumps(FAILED.body(request))}\n\n"


async def unless_left(request: Request, events: AsyncIterator[Event]) -> dict[str, Any] | None:
    """The last event's data; None when the client leaves before, and the work with it. (Streams do that themselves.)"""

    async def last() -> dict[str, Any]:
        data: dict[str, Any] = {}
        async for _, data in events:
            pass
        return data

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    both = working, leaving = asyncio.create_task(last()), asyncio.create_task(left())
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in both:
            task.cancel()


FAILED = Problem(500, "internal", "the agent failed; its log says why")


async def told(request: Request, problem: Problem) -> Response:
    return problem.response(request)


async def of_http(request: Request, error: HTTPException) -> Response:
    codes = {404: "not-found", 405: "method-not-allowed", 413: "body-too-large"}
    code = codes.get(error.status_code, "bad-request")
    return Problem(error.status_code, code, str(error.detail), error.headers).response(request)


async def of_body(request: Request, error: ValidationError) -> Response:
    wrong = [f"{'.'.join(map(str, e['loc'])) or 'the body'}: {e['msg']}" for e in error.errors()]
    example = 'send a JSON object such as {"input": "your question"}'
    return Problem(400, "bad-request", "; ".join([*wrong, example])).response(request)


async def of_leaving(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)


async def of_ours(request: Request, error: Exception) -> Response:
    return FAILED.response(request)


HANDLERS: dict[type[Exception], Any] = {
    Problem: told,
    HTTPException: of_http,
    ValidationError: of_body,
    ClientDisconnect: of_leaving,
    Exception: of_ours,
}


def serve(door: Door) -> None:
    """Serves until SIGTERM or Ctrl-C. Exits 0 when everything was finished, 1 when the drain timeout cut some."""
    host, port = setting("HOST", str, "127.0.0.1"), setting("PORT", int, 8000)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    clocks = {"timeout_keep_alive": KEEP_ALIVE, "timeout_graceful_shutdown": LAST_BYTES}
    Server(uvicorn.Config(door, host, port, access_log=False, lifespan="off", **clocks), door).run()
