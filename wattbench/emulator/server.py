"""The emulated machine's HTTP face: OpenAI API, Prometheus metrics, and the truth.

    GET  /v1/models                 the one model
    POST /v1/completions            also /v1/chat/completions; streamed or whole
    GET  /metrics                   DCGM names for the devices, vLLM names for the server
    GET  /truth?start=T&end=T       exact energies and counts between two Unix times [s]
    GET  /health

It runs in real time; the physics is that of the in-process face.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiohttp import web

from wattbench.core.errors import WattbenchError
from wattbench.emulator.device import Stream
from wattbench.emulator.exposition import Page
from wattbench.emulator.truth import WindowTruth, truth

MEAN_OUTPUT_TOKENS = 150
"""Answers that may end by themselves are geometric with this mean [tokens]."""
MAX_EMISSIONS = 100_000
"""Requests whose first emission is remembered."""
DEFAULT_MAX_TOKENS = {"text_completion": 16, "chat.completion": 256}
_TRUTH_KEYS = (
    "energy_joules",
    "idle_energy_joules",
    "prefill_energy_joules",
    "decode_energy_joules",
    "prefill_tokens",
    "output_tokens",
)


class BadRequest(Exception):
    """A request that an OpenAI server would refuse with HTTP 400."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One validated request for an answer.

    Attributes:
        kind: ``text_completion`` or ``chat.completion``.
        input_tokens: Prompt length; a word, or a given token id, is a token.
        output_tokens: Length that the answer will have.
        finish_reason: ``length`` if the limit ends it, else ``stop``.
        stream: Whether it is streamed.
        include_usage: Whether the stream ends with counts.
    """

    kind: str
    input_tokens: int
    output_tokens: int
    finish_reason: str
    stream: bool
    include_usage: bool


class EmulatorServer:
    """Serves one machine.

    Args:
        page: The machine, not started, with its sensors and names.
        seed: Seed of answer lengths.
        tokens_per_chunk: Tokens in one event of a stream.
    """

    def __init__(self, page: Page, *, seed: int = 0, tokens_per_chunk: int = 1) -> None:
        self.machine = page.machine
        self.model = page.model
        self.succeeded = 0
        self._page = page
        self._tokens_per_chunk = tokens_per_chunk
        self._lengths = np.random.default_rng((seed, 0x4C))
        self._created = 0
        self._emitted_s: dict[int, float] = {}

    def application(self) -> web.Application:
        """The web application; the machine is switched on when it starts."""
        app = web.Application(client_max_size=64 << 20)
        app.on_startup.append(self._switch_on)
        app.on_shutdown.append(self._switch_off)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/truth", self._truth)
        app.router.add_get("/health", self._health)
        return app

    async def _switch_on(self, _app: web.Application) -> None:
        self._created = int(time.time())
        self.machine.start()

    async def _switch_off(self, _app: web.Application) -> None:
        self.machine.stop()

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _models(self, _request: web.Request) -> web.Response:
        model = {"id": self.model, "object": "model", "created": self._created}
        model |= {
            "owned_by": "wattbench",
            "max_model_len": self.machine.roofline.kv_capacity_tokens,
        }
        return web.json_response({"object": "list", "data": [model]})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, "text_completion")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, "chat.completion")

    async def _answer(self, request: web.Request, kind: str) -> web.StreamResponse:
        try:
            ask = self._understand(await request.json(), kind)
            stream = self.machine.submit(ask.input_tokens, ask.output_tokens)
        except (BadRequest, ValueError) as error:
            detail = {"message": str(error), "type": "invalid_request_error", "code": 400}
            return web.json_response({"error": detail}, status=400)
        try:
            if ask.stream:
                return await self._streamed(request, ask, stream)
            return await self._whole(ask, stream)
        finally:
            # Also when the client went away: the machine must not work for nobody.
            self.machine.cancel(stream)

    def _understand(self, body: Any, kind: str) -> Ask:
        if not isinstance(body, dict):
            raise BadRequest("the body must be a JSON object")
        if body.get("model", self.model) != self.model:
            raise BadRequest(f"the model is {self.model!r}, not {body['model']!r}")
        if body.get("n", 1) != 1:
            raise BadRequest("n must be 1")
        asked = body.get("max_tokens") or body.get("max_completion_tokens")
        limit = _positive(asked or DEFAULT_MAX_TOKENS[kind], "max_tokens")
        least = min(limit, int(body.get("min_tokens") or 1))
        length = limit
        if not body.get("ignore_eos"):
            length = min(limit, max(least, int(self._lengths.geometric(1 / MEAN_OUTPUT_TOKENS))))
        options = body.get("stream_options") or {}
        return Ask(
            kind=kind,
            input_tokens=_prompt_tokens(body, kind),
            output_tokens=length,
            finish_reason="length" if length == limit else "stop",
            stream=bool(body.get("stream")),
            include_usage=bool(options.get("include_usage")),
        )

    async def _streamed(self, request: web.Request, ask: Ask, stream: Stream) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        if ask.kind == "chat.completion":
            await response.write(self._event(ask, stream, role=True))
        sent = 0
        while sent < ask.output_tokens:
            want = min(self._tokens_per_chunk, ask.output_tokens - sent)
            await _take(stream, want)
            sent += want
            last = sent == ask.output_tokens
            event = self._event(ask, stream, first=sent - want, tokens=want, last=last)
            if sent == want:
                self._note_emission(stream.number)
            await response.write(event)
        self.succeeded += 1
        if ask.include_usage:
            chunk = self._head(ask, stream, chunk=True) | {"choices": [], "usage": _usage(ask)}
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def _note_emission(self, number: int) -> None:
        """Keep when the first token of a request was written, of as many requests as fit."""
        self._emitted_s[number] = asyncio.get_running_loop().time()
        if len(self._emitted_s) > MAX_EMISSIONS:
            del self._emitted_s[next(iter(self._emitted_s))]

    def _event(
        self,
        ask: Ask,
        stream: Stream,
        *,
        first: int = 0,
        tokens: int = 0,
        last: bool = False,
        role: bool = False,
    ) -> bytes:
        text = "".join(f" w{number}" for number in range(first, first + tokens))
        choice: dict[str, Any] = {"index": 0, "logprobs": None}
        choice["finish_reason"] = ask.finish_reason if last else None
        if ask.kind == "chat.completion":
            choice["delta"] = {"role": "assistant", "content": ""} if role else {"content": text}
        else:
            choice["text"] = text
        chunk = self._head(ask, stream, chunk=True) | {"choices": [choice]}
        return f"data: {json.dumps(chunk)}\n\n".encode()

    async def _whole(self, ask: Ask, stream: Stream) -> web.Response:
        await _take(stream, ask.output_tokens)
        self.succeeded += 1
        text = "".join(f" w{number}" for number in range(ask.output_tokens))
        choice: dict[str, Any] = {"index": 0, "finish_reason": ask.finish_reason, "logprobs": None}
        if ask.kind == "chat.completion":
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        body = self._head(ask, stream, chunk=False) | {"choices": [choice], "usage": _usage(ask)}
        return web.json_response(body)

    def _head(self, ask: Ask, stream: Stream, *, chunk: bool) -> dict[str, Any]:
        chat = ask.kind == "chat.completion"
        return {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{stream.number}",
            "object": "chat.completion.chunk" if chat and chunk else ask.kind,
            "created": self._created,
            "model": self.model,
        }

    async def _metrics(self, _request: web.Request) -> web.Response:
        now_s = asyncio.get_running_loop().time()
        text = self._page.render(now_s, time.time(), self.succeeded)
        return web.Response(text=text, content_type="text/plain", charset="utf-8")

    async def _truth(self, request: web.Request) -> web.Response:
        unix_minus_loop_s = time.time() - asyncio.get_running_loop().time()
        try:
            start_s, end_s = (float(request.query[name]) for name in ("start", "end"))
        except (KeyError, ValueError):
            return web.json_response({"error": "give start and end, Unix seconds"}, status=400)
        if not start_s < end_s:
            return web.json_response({"error": "start must be before end"}, status=400)
        found = truth(self.machine, start_s - unix_minus_loop_s, end_s - unix_minus_loop_s)
        return web.json_response(_truth_json(found, unix_minus_loop_s, self._emitted_s))


def _truth_json(
    found: WindowTruth, unix_minus_loop_s: float, emitted_s: Mapping[int, float]
) -> dict[str, Any]:
    def unix_s(time_s: float | None) -> float | None:
        return None if time_s is None else time_s + unix_minus_loop_s

    shown: dict[str, Any] = {key: getattr(found, key) for key in _TRUTH_KEYS}
    shown["requests"] = [
        {
            "id": request.number,
            "energy_joules": request.energy_joules,
            "first_token_unix_s": unix_s(request.first_token_s),
            "first_emission_unix_s": unix_s(emitted_s.get(request.number)),
            "last_token_unix_s": unix_s(request.last_token_s),
            "input_tokens": request.input_tokens,
            "output_tokens": request.output_tokens,
        }
        for request in found.requests
    ]
    return shown


async def _take(stream: Stream, tokens: int) -> None:
    """Wait until that many tokens are ready, and take them."""
    loop = asyncio.get_running_loop()
    while stream.ready < tokens:
        stream.waiter = loop.create_future()
        await stream.waiter
    stream.ready -= tokens


def _usage(ask: Ask) -> dict[str, Any]:
    return {
        "prompt_tokens": ask.input_tokens,
        "completion_tokens": ask.output_tokens,
        "total_tokens": ask.input_tokens + ask.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def _positive(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadRequest(f"{name} must be a whole number from 1, not {value!r}")
    return value


def _prompt_tokens(body: dict[str, Any], kind: str) -> int:
    if kind == "chat.completion":
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise BadRequest("messages must be a list that is not empty")
        return max(1, sum(_words(m.get("content") if isinstance(m, dict) else m) for m in messages))
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
        return len(prompt)
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise BadRequest("prompt must be one text, or a list of token ids")
    return max(1, _words(prompt))


def _words(content: Any) -> int:
    if isinstance(content, list):
        return sum(_words(part.get("text")) for part in content if isinstance(part, dict))
    return len(content.split()) if isinstance(content, str) else 0


async def serve(server: EmulatorServer, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve on the loopback interface until SIGINT or SIGTERM.

    Args:
        server: What to serve.
        port: Where; 0 picks a free one.
        on_ready: Called with the base URL once connections are accepted.

    Raises:
        WattbenchError: If the port cannot be opened.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
        except OSError as error:
            raise WattbenchError(
                f"port {port} cannot be opened: {error.strerror}; choose another, or --port 0"
            ) from error
        on_ready(f"http://127.0.0.1:{runner.addresses[0][1]}")
        await stopped.wait()
    finally:
        await runner.cleanup()
