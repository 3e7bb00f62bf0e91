"""The emulated machine's HTTP face: OpenAI API, Prometheus metrics, and the truth.

    GET  /v1/models                 the one model
    POST /v1/completions            also /v1/chat/completions; streamed or whole
    GET  /metrics                   DCGM names for the devices, vLLM names for the server
    GET  /truth?start=T&end=T       exact energies and counts between two Unix times [s];
                                    with &emissions=1 also when each event was written
    GET  /health

It runs in real time; the physics is that of the in-process face.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from aiohttp import web

from wattbench.emulator.answer_faults import WRONG_FACTOR, AnswerFault, break_off
from wattbench.emulator.device import Stream
from wattbench.emulator.emissions import Emissions
from wattbench.emulator.exposition import Page
from wattbench.emulator.truth import RequestTruth, WindowTruth, truth
from wattbench.openai_api import (
    DONE,
    AnswerWriter,
    Ask,
    BadRequest,
    Kind,
    models,
    refusal,
    understand,
    usage,
)

MEAN_OUTPUT_TOKENS = 150
"""Answers that may end by themselves are geometric with this mean [tokens]."""
_TRUTH_KEYS = (
    "energy_joules",
    "idle_energy_joules",
    "prefill_energy_joules",
    "decode_energy_joules",
    "prefill_tokens",
    "output_tokens",
)


class EmulatorServer:
    """Serves one machine.

    Args:
        page: The machine, not started, with its sensors and names.
        seed: Seed of answer lengths.
        tokens_per_chunk: Tokens in one event of a stream.
        faults: How answers fail.

    Attributes:
        machine: The machine.
        model: Name of what it serves.
        succeeded: Answers that came to their end.
        emissions: When each event was written.
    """

    def __init__(
        self,
        page: Page,
        *,
        seed: int = 0,
        tokens_per_chunk: int = 1,
        faults: Sequence[AnswerFault] = (),
    ) -> None:
        self.machine = page.machine
        self.model = page.model
        self.succeeded = 0
        self.emissions = Emissions()
        self._page = page
        self._tokens_per_chunk = tokens_per_chunk
        self._lengths = np.random.default_rng((seed, 0x4C))
        self._faults = faults
        self._asked = 0
        self._created_unix_s = 0

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
        self._created_unix_s = int(time.time())
        self.machine.start()

    async def _switch_off(self, _app: web.Application) -> None:
        self.machine.stop()

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _models(self, _request: web.Request) -> web.Response:
        longest = self.machine.roofline.kv_capacity_tokens
        return web.json_response(models(self.model, self._created_unix_s, longest))

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, "text_completion")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, "chat.completion")

    async def _answer(self, request: web.Request, kind: Kind) -> web.StreamResponse:
        received_s = asyncio.get_running_loop().time()
        try:
            ask = understand(await request.json(), kind, self.model)
            self._asked += 1
            fault = next((f for f in self._faults if self._asked % f.every == 0), None)
            if fault is not None and fault.status is not None:
                return web.json_response(refusal("out of order", fault.status), status=fault.status)
            output_tokens = self._length(ask)
            stream = self.machine.submit(ask.words, output_tokens)
        except (BadRequest, ValueError) as error:
            return web.json_response(refusal(str(error), 400), status=400)
        writer = AnswerWriter(
            kind=kind, number=stream.number, model=self.model, created_unix_s=self._created_unix_s
        )
        try:
            if not ask.stream:
                return await self._whole(ask, stream, writer)
            self.emissions.begin(stream.number, received_s)
            return await self._streamed(request, ask, stream, writer, fault)
        finally:
            # Also when the client went away: the machine must not work for nobody.
            self.machine.cancel(stream)

    def _length(self, ask: Ask) -> int:
        """Length of the answer [tokens]."""
        if ask.ignore_eos:
            return ask.max_tokens
        drawn = int(self._lengths.geometric(1 / MEAN_OUTPUT_TOKENS))
        return min(ask.max_tokens, max(ask.min_tokens, drawn))

    async def _streamed(
        self,
        request: web.Request,
        ask: Ask,
        stream: Stream,
        writer: AnswerWriter,
        fault: AnswerFault | None,
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        if ask.kind == "chat.completion":
            await response.write(writer.role())
        for first in range(0, stream.output_tokens, self._tokens_per_chunk):
            if fault is not None and first >= stream.output_tokens // 2 and fault.breaks_off:
                await break_off(fault, request, response)
                return response
            want = min(self._tokens_per_chunk, stream.output_tokens - first)
            await _take(stream, want)
            reason = _reason(ask, stream) if first + want == stream.output_tokens else None
            event = writer.text(_words(first, want), reason)
            self.emissions.note(stream)
            await response.write(event)
        self.succeeded += 1
        if ask.include_usage:
            factor = WRONG_FACTOR if fault is not None else 1  # the others have returned
            counts = (stream.input_tokens, stream.output_tokens * factor)
            await response.write(writer.usage(*counts, cached_tokens=0))
        await response.write(DONE)
        await response.write_eof()
        return response

    async def _whole(self, ask: Ask, stream: Stream, writer: AnswerWriter) -> web.Response:
        await _take(stream, stream.output_tokens)
        self.succeeded += 1
        counts = usage(stream.input_tokens, stream.output_tokens, cached_tokens=0)
        text = _words(0, stream.output_tokens)
        return web.json_response(writer.whole(text, _reason(ask, stream), counts))

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
        each = request.query.get("emissions") == "1"
        return web.json_response(_truth_json(found, unix_minus_loop_s, self.emissions, each=each))


def _truth_json(
    found: WindowTruth, unix_minus_loop_s: float, emissions: Emissions, *, each: bool
) -> dict[str, Any]:
    def unix_s(time_s: float | None) -> float | None:
        return None if time_s is None else time_s + unix_minus_loop_s

    def request_json(request: RequestTruth) -> dict[str, Any]:
        written_s = emissions.written_s(request.number)
        shown: dict[str, Any] = {
            "id": request.number,
            "energy_joules": request.energy_joules,
            "received_unix_s": unix_s(emissions.received_s(request.number)),
            "first_token_unix_s": unix_s(request.first_token_s),
            "first_emission_unix_s": unix_s(written_s[0] if written_s else None),
            "last_token_unix_s": unix_s(request.last_token_s),
            "input_tokens": request.input_tokens,
            "output_tokens": request.output_tokens,
        }
        if each:
            shown["emission_unix_s"] = [unix_s(time_s) for time_s in written_s]
        return shown

    shown: dict[str, Any] = {key: getattr(found, key) for key in _TRUTH_KEYS}
    shown["emission_lateness"] = emissions.lateness()
    shown["requests"] = [request_json(request) for request in found.requests]
    return shown


async def _take(stream: Stream, tokens: int) -> None:
    """Wait until that many tokens are ready, and take them."""
    loop = asyncio.get_running_loop()
    while stream.ready < tokens:
        stream.waiter = loop.create_future()
        await stream.waiter
    stream.ready -= tokens


def _reason(ask: Ask, stream: Stream) -> str:
    return "length" if stream.output_tokens == ask.max_tokens else "stop"


def _words(first: int, count: int) -> str:
    return "".join(f" w{number}" for number in range(first, first + count))
