"""An OpenAI face for any backend, so that other load generators can drive an embedded engine.

    GET  /v1/models                 the one model
    POST /v1/completions            also /v1/chat/completions; streamed or whole
    GET  /metrics                   requests running and answered, tokens; vLLM's names
    GET  /health

Answers are what the backend decodes, greedily; ``temperature`` and the like are taken and change
nothing. A field that would change what an answer means (``n``, ``stop``, ``tools``, ``logprobs``)
is refused. A chat's messages are joined by line feeds, without a template.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

from aiohttp import web

from wattbench.core.errors import BackendError
from wattbench.core.load import InferenceRequest, Message, Role, TokenChunk, Usage
from wattbench.core.protocols import Backend
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

MAX_BODY_BYTES = 64 << 20
NOT_SERVED = ("stop", "tools", "functions", "logprobs", "logit_bias", "response_format", "echo")


class BackendServer:
    """Serves one open backend.

    Args:
        backend: It is open; closing it stays with the caller.
        model: The name it is served by.

    Attributes:
        running: Requests under way.
        succeeded: Answers that came to their end.
        output_tokens: Tokens of those answers.
    """

    def __init__(self, backend: Backend, model: str) -> None:
        self.running = 0
        self.succeeded = 0
        self.output_tokens = 0
        self._backend = backend
        self._model = model
        self._numbers = itertools.count()
        self._created_unix_s = int(time.time())

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/health", self._health)
        return app

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response(models(self._model, self._created_unix_s))

    async def _metrics(self, _request: web.Request) -> web.Response:
        label = f'{{model_name="{self._model}"}}'
        figures = {
            "vllm:num_requests_running": self.running,
            "vllm:request_success_total": self.succeeded,
            "vllm:generation_tokens_total": self.output_tokens,
        }
        lines = [f"{name}{label} {figure}\n" for name, figure in figures.items()]
        return web.Response(text="".join(lines), content_type="text/plain", charset="utf-8")

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, "text_completion")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, "chat.completion")

    async def _answer(self, request: web.Request, kind: Kind) -> web.StreamResponse:
        number = next(self._numbers)
        try:
            ask = _served(await request.json(), kind, self._model)
        except json.JSONDecodeError as error:
            return web.json_response(refusal(f"the body is no JSON: {error}", 400), status=400)
        except (BadRequest, ValueError) as error:
            return web.json_response(refusal(str(error), 400), status=400)
        writer = AnswerWriter(
            kind=kind, number=number, model=self._model, created_unix_s=self._created_unix_s
        )
        self.running += 1
        try:
            chunks = cast(
                "AsyncGenerator[TokenChunk, None]", self._backend.generate(_request(ask, number))
            )
            # Also when the client goes away: the engine must not work for nobody.
            async with aclosing(chunks):
                if ask.stream:
                    return await self._streamed(request, ask, chunks, writer)
                return await self._whole(chunks, writer)
        finally:
            self.running -= 1

    async def _streamed(
        self,
        request: web.Request,
        ask: Ask,
        chunks: AsyncGenerator[TokenChunk, None],
        writer: AnswerWriter,
    ) -> web.StreamResponse:
        """Headers go out with the first chunk, so that a refusal can still be a status."""
        try:
            chunk = await anext(chunks)
        except BackendError as error:
            return web.json_response(refusal(str(error), 500), status=500)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        if ask.kind == "chat.completion":
            await response.write(writer.role())
        try:
            while chunk.usage is None:
                await response.write(writer.text(chunk.text or ""))
                chunk = await anext(chunks)
            await self._end(response, ask, chunk, writer)
        except BackendError as error:
            await response.write(writer.error(str(error)))
        await response.write_eof()
        return response

    async def _end(
        self, response: web.StreamResponse, ask: Ask, last: TokenChunk, writer: AnswerWriter
    ) -> None:
        counts = self._counted(last.usage)
        await response.write(writer.text(last.text or "", counts.finish_reason or "stop"))
        if ask.include_usage:
            await response.write(
                writer.usage(
                    counts.input_tokens or 0, counts.output_tokens or 0, counts.cached_tokens
                )
            )
        await response.write(DONE)

    async def _whole(
        self, chunks: AsyncGenerator[TokenChunk, None], writer: AnswerWriter
    ) -> web.Response:
        texts: list[str] = []
        last: TokenChunk | None = None
        try:
            async for last in chunks:
                texts.append(last.text or "")
        except BackendError as error:
            return web.json_response(refusal(str(error), 500), status=500)
        found = self._counted(last.usage if last is not None else None)
        counts = usage(found.input_tokens or 0, found.output_tokens or 0, found.cached_tokens)
        return web.json_response(
            writer.whole("".join(texts), found.finish_reason or "stop", counts)
        )

    def _counted(self, counts: Usage | None) -> Usage:
        self.succeeded += 1
        counts = counts or Usage(input_tokens=None, output_tokens=None)
        self.output_tokens += counts.output_tokens or 0
        return counts


def _served(body: Any, kind: Kind, model: str) -> Ask:
    ask = understand(body, kind, model)
    for name in NOT_SERVED:
        if body.get(name):
            raise BadRequest(f"{name} is not served here; leave it out")
    if not any(text for _, text in ask.messages) and ask.token_ids is None:
        raise BadRequest("the prompt is empty: a prompt needs a word at least")
    if ask.token_ids is not None:
        raise BadRequest("a prompt of token ids is not served here; send text")
    return ask


def _request(ask: Ask, number: int) -> InferenceRequest:
    texts = [text + "\n" for _, text in ask.messages[:-1]] + [ask.messages[-1][1]]
    roles = [cast("Role", role) for role, _ in ask.messages]
    return InferenceRequest(
        index=number,
        session_index=number,
        turn_index=0,
        messages=tuple(
            Message(role=role, text=text) for role, text in zip(roles, texts, strict=True)
        ),
        max_output_tokens=ask.max_tokens,
        ignore_eos=ask.ignore_eos or ask.min_tokens == ask.max_tokens,
    )
