"""A small real server that speaks the OpenAI API by a script, for tests over a real socket.

async with OpenAIServer(Script(tokens=8)) as server:
backend = OpenAIBackend(OpenAIOptions(url=server.url), context)
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What the server does.

    Attributes:
        tokens: Answer length [tokens]; None gives what ``max_tokens`` asks for.
        tokens_per_chunk: Tokens in one event.
        word: Text of each token.
        usage: Whether the counts are sent.
        cached_tokens: Count of cached prompt tokens, None to leave it out.
        finish_reason: Word for the end, None to leave it out.
        done: Whether ``[DONE]`` is sent.
        role_first: Whether a chat begins with a chunk that has only a role.
        newline: End of each line.
        refuses: Names of request fields refused with ``refuse_status``.
        refuse_status: HTTP status of such a refusal.
        fail_status: HTTP status of every answer, None to answer.
        fail_body: Body of such a failure; ``{auth}`` stands for the Authorization header.
        fail_headers: Headers of such a failure.
        insert: Raw bytes put in after ``at`` events.
        at: Number of events before ``insert``, ``stop`` or both.
        stop: After ``at`` events ``end`` the body, ``abort`` the connection or ``hang``.
        gather: Requests that must be in flight together before any is answered.
        linger_s: Time between the last event and the end of the body [s].
        models: Names served.
        models_status: HTTP status of ``GET /models``.
        models_body: Body of ``GET /models`` in place of the list.
        models_content_type: Its content type.
        server: Value of the header ``Server``.
        needs_key: The only key accepted, None to accept all.
    """

    tokens: int | None = None
    tokens_per_chunk: int = 1
    word: str = "word "
    usage: bool = True
    cached_tokens: int | None = None
    finish_reason: str | None = "length"
    done: bool = True
    role_first: bool = False
    newline: str = "\n"
    refuses: tuple[str, ...] = ()
    refuse_status: int = 400
    fail_status: int | None = None
    fail_body: str = '{"error": {"message": "out of order"}}'
    fail_headers: Mapping[str, str] = field(default_factory=dict)
    insert: bytes | None = None
    at: int = 1
    stop: Literal["end", "abort", "hang"] | None = None
    gather: int = 1
    linger_s: float = 0.0
    models: tuple[str, ...] = ("tiny", "other")
    models_status: int = 200
    models_body: str | None = None
    models_content_type: str = "application/json"
    server: str = "scripted/1.0"
    needs_key: str | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """One request as it arrived."""

    path: str
    query: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    connection: tuple[str, int]


class OpenAIServer:
    """Serves a ``Script`` on a free port of 127.0.0.1 within the running loop.

    Attributes:
        script: What it does; may be replaced between requests.
        requests: Every POST that arrived.
        abandoned: Requests whose client went away before the answer was whole.
    """

    def __init__(self, script: Script | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.script = script or Script()
        self.requests: list[Served] = []
        self.abandoned = 0
        self._tls = tls
        self._in_flight = 0
        self._all_here = asyncio.Event()
        self._port = 0
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._completions)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )

    @property
    def url(self) -> str:
        """Base URL of the API."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}/v1"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Close the port and all connections."""
        await self._runner.cleanup()

    async def _models(self, request: web.Request) -> web.Response:
        script = self.script
        if (
            script.needs_key
            and request.headers.get("Authorization") != f"Bearer {script.needs_key}"
        ):
            return web.json_response({"error": "who are you?"}, status=401)
        listed = {"object": "list", "data": [{"id": name} for name in script.models]}
        return web.Response(
            status=script.models_status,
            text=json.dumps(listed) if script.models_body is None else script.models_body,
            content_type=script.models_content_type,
            headers={"Server": script.server},
        )

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        script, body = self.script, await request.json()
        assert request.transport is not None
        peer = request.transport.get_extra_info("peername")[:2]
        self.requests.append(
            Served(request.path, request.query_string, dict(request.headers), body, peer)
        )
        if script.fail_status is not None:
            text = script.fail_body.replace("{auth}", request.headers.get("Authorization", ""))
            return web.Response(status=script.fail_status, text=text, headers=script.fail_headers)
        unknown = [name for name in script.refuses if name in body]
        if unknown:
            message = f"Unrecognized request argument supplied: {unknown[0]}"
            return web.json_response({"error": {"message": message}}, status=script.refuse_status)
        await self._gathered()
        return await self._stream(request, body)

    async def _gathered(self) -> None:
        self._in_flight += 1
        if self._in_flight >= self.script.gather:
            self._all_here.set()
        await self._all_here.wait()

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        script = self.script
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            await response.prepare(request)
            for number, event in enumerate([*_events(script, request.path, body), None]):
                if number == script.at:
                    await response.write(script.insert or b"")
                    if script.stop:
                        await _stop(script.stop, request)
                        return response
                if event is not None:
                    await response.write(f"data: {event}{script.newline * 2}".encode())
            await asyncio.sleep(script.linger_s)
        except (asyncio.CancelledError, ConnectionResetError):
            self.abandoned += 1
            raise
        return response


async def _stop(how: Literal["end", "abort", "hang"], request: web.Request) -> None:
    if how == "hang":
        await asyncio.Event().wait()
    if how == "abort" and request.transport is not None:
        request.transport.abort()


def _events(script: Script, path: str, body: dict[str, Any]) -> list[str]:
    """The data of each event of an answer."""
    chat = path.endswith("/chat/completions")
    tokens = body["max_tokens"] if script.tokens is None else script.tokens
    sizes = [
        min(script.tokens_per_chunk, tokens - start)
        for start in range(0, tokens, script.tokens_per_chunk)
    ]
    choices: list[dict[str, Any]] = []
    if script.role_first:
        choices.append({"delta": {"role": "assistant", "content": ""}} if chat else {"text": ""})
    for size in sizes:
        text = script.word * size
        choices.append({"delta": {"content": text}} if chat else {"text": text})
    if script.finish_reason is not None:
        ending: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
        choices.append(ending | {"finish_reason": script.finish_reason})
    events = [
        json.dumps({"choices": [{"index": 0, "finish_reason": None} | choice], "usage": None})
        for choice in choices
    ]
    if script.usage and body.get("stream_options", {}).get("include_usage"):
        events.append(json.dumps({"choices": [], "usage": _usage(script, body, tokens)}))
    return [*events, "[DONE]"] if script.done else events


def _usage(script: Script, body: dict[str, Any], tokens: int) -> dict[str, Any]:
    """The counts: a word of the prompt is a token."""
    texts = [message["content"] for message in body.get("messages", [])] or [body["prompt"]]
    usage: dict[str, Any] = {
        "prompt_tokens": sum(len(text.split()) for text in texts),
        "completion_tokens": tokens,
    }
    if script.cached_tokens is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": script.cached_tokens}
    return usage
