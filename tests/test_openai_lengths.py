"""Prompts of an exact length, against a server whose tokenizer is known."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from openai_client import a_backend, a_client, a_request, answer

from wattbench.backends.openai_lengths import Calibration, PromptLengths, Setting, asker
from wattbench.backends.openai_wire import PATHS, Api, message_text, request_body
from wattbench.core.load import Message


def cost(text: str) -> int:
    """Tokens of a text: four letters each, so that a word has one or two."""
    return sum((len(word) + 3) // 4 for word in text.split())


@dataclass
class CountingServer:
    """Counts tokens by ``cost``, with 5 for a request and 3 for a message of a chat."""

    tokenizes: str | None = None
    counts: bool = True
    refuses: int | None = None
    prompts: list[int] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """Base URL of the API while it is served."""
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._generate)
        app.router.add_post("/v1/chat/completions", self._generate)
        if self.tokenizes:
            app.router.add_post("/tokenize", self._tokenize)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        finally:
            await runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "tiny"}]})

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.tokenizes == "vllm":
            return web.json_response({"count": 1 + cost(body["prompt"])})
        return web.json_response({"tokens": [7] * cost(body["content"])})

    async def _generate(self, request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        if self.refuses and "ignore_eos" in body:
            return web.json_response({"detail": "unexpected"}, status=self.refuses)
        texts = [message["content"] for message in body.get("messages", [])]
        tokens = 5 + 3 * len(texts) + sum(map(cost, texts)) + cost(body.get("prompt", ""))
        usage = {"prompt_tokens": tokens, "completion_tokens": 1} if self.counts else None
        if not body.get("stream"):
            return web.json_response({"choices": [{"text": "a"}], "usage": usage})
        self.prompts.append(tokens)
        event = json.dumps({"choices": [{"text": "a", "finish_reason": "length"}], "usage": usage})
        text = f"data: {event}\n\ndata: [DONE]\n\n"
        return web.Response(text=text, content_type="text/event-stream")


def calibrated(server: CountingServer, api: Api = "chat", how: Setting = "auto") -> PromptLengths:
    async def main() -> PromptLengths:
        async with server.served() as url, a_client(url) as client:
            ask = asker(client, f"/v1/{PATHS[api]}", {})
            return await Calibration(ask, "tiny", api).lengths(how)

    return asyncio.run(main())


def prompt_tokens(lengths: PromptLengths, api: Api, *parts: int) -> int:
    """What the server counts for a prompt of synthetic messages."""
    messages = tuple(Message(role="user", tokens=n, seed=n) for n in parts)
    body: dict[str, Any] = request_body(a_request(messages=messages), "tiny", api, lengths)
    texts = [message["content"] for message in body.get("messages", [])]
    return 5 + 3 * len(texts) + sum(map(cost, texts)) + cost(body.get("prompt", ""))


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("kind", ["vllm", "llama-server"])
def test_exact_by_the_tokenizer(kind: str, api: Api) -> None:
    """Every length comes out, with what the template adds and over several messages."""
    lengths = calibrated(CountingServer(tokenizes=kind), api)
    assert (lengths.source, lengths.ignores_eos) == ("tokenize", True)
    for parts in [(20,), (21,), (1000,), (20, 31, 42)]:
        assert prompt_tokens(lengths, api, *parts) == sum(parts)


def test_right_on_average_by_the_counts() -> None:
    """Without a tokenizer three requests tell the tokens per word and the template."""
    lengths = calibrated(CountingServer())
    assert (lengths.source, lengths.probes) == ("usage", 4)  # the fourth was refused: no /tokenize
    mean = sum(prompt_tokens(lengths, "chat", 100 + n) / (100 + n) for n in range(50)) / 50
    assert mean == pytest.approx(1.0, abs=0.05)


def test_a_server_that_does_not_tell_gets_a_word_a_token() -> None:
    lengths = calibrated(CountingServer(counts=False))
    assert lengths.source == "words"
    message = Message(role="user", tokens=9, seed=4)
    assert lengths.text(message, opens=True) == message_text(message)


def test_only_what_was_asked_for() -> None:
    assert calibrated(CountingServer(tokenizes="vllm"), how="usage").source == "usage"
    assert calibrated(CountingServer(), how="tokenize").source == "words"
    assert calibrated(CountingServer(tokenizes="vllm"), how="off") == PromptLengths()


def test_given_text_stays_as_it_is() -> None:
    lengths = calibrated(CountingServer(tokenizes="vllm"))
    assert lengths.text(Message(role="user", text="as it is"), opens=True) == "as it is"


@pytest.mark.parametrize("status", [400, 422])
def test_a_refusal_of_ignore_eos_shows_when_it_opens(status: int) -> None:
    """Servers refuse unknown fields by either status; no request of the run has to find out."""
    assert not calibrated(CountingServer(refuses=status)).ignores_eos


def test_the_backend_sends_what_was_asked_for() -> None:
    server = CountingServer(tokenizes="vllm")

    async def main() -> None:
        async with server.served() as url:
            backend = a_backend(url, api="chat", exact_lengths="auto")
            info = await backend.open()
            assert info.detail["prompt_lengths"] == "tokenize"
            await answer(backend, a_request(messages=(Message(role="user", tokens=50, seed=1),)))
            await backend.close()

    asyncio.run(main())
    assert server.prompts == [50]
