"""An embedded engine behind the OpenAI API: any backend through the face, and the command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from wire import get, post, run_point

from wattbench.core.errors import BackendError
from wattbench.core.load import InferenceRequest, TokenChunk, Usage
from wattbench.core.run import EngineInfo, Mode
from wattbench.serving import BackendServer


class Parrot:
    """A backend that says the prompt's words back; it fails on the word ``fail``."""

    def __init__(self) -> None:
        self.abandoned = 0

    async def open(self) -> EngineInfo:
        """Part of ``Backend``."""
        return EngineInfo(model="parrot", engine="parrot", tokens_source="engine", mode=Mode())

    async def generate(self, request: InferenceRequest) -> AsyncIterator[TokenChunk]:
        """Part of ``Backend``."""
        words = " ".join(message.text or "" for message in request.messages).split()
        ended = False
        try:
            for number in range(request.max_output_tokens):
                if words[number % len(words)] == "fail":
                    raise BackendError("it failed")
                if words[0] == "hang":
                    await asyncio.Event().wait()
                yield TokenChunk(tokens=1, text=words[number % len(words)] + " ")
            counts = Usage(input_tokens=len(words), output_tokens=request.max_output_tokens)
            yield TokenChunk(tokens=0, usage=counts)
            ended = True
        finally:
            self.abandoned += not ended

    async def close(self) -> None:
        """Part of ``Backend``."""


@contextlib.asynccontextmanager
async def served(backend: Parrot) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    runner = web.AppRunner(
        BackendServer(backend, "parrot").application(), handler_cancellation=True
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", session
    await runner.cleanup()


def asked(path: str, body: dict[str, Any]) -> tuple[int, str]:
    """Status and body of one request."""

    async def main() -> tuple[int, str]:
        async with served(Parrot()) as (url, session), session.post(url + path, json=body) as found:
            return found.status, await found.text()

    return asyncio.run(main())


def test_a_whole_answer() -> None:
    status, body = asked("/v1/completions", {"prompt": "a b", "max_tokens": 3})
    found = json.loads(body)
    assert status == 200
    assert found["choices"][0]["text"] == "a b a "
    assert found["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}


def test_a_streamed_chat() -> None:
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": "y z"}]
    options = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 2}
    _, body = asked("/v1/chat/completions", {"messages": messages} | options)
    events = [line[6:] for line in body.splitlines() if line]
    assert events.pop() == "[DONE]"
    parsed = [json.loads(event) for event in events]
    said = [each["choices"][0]["delta"]["content"] for each in parsed[:-1]]
    assert said == ["", "x ", "y ", ""]
    assert parsed[-2]["choices"][0]["finish_reason"] == "stop"
    assert parsed[-1]["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"prompt": "a", "stop": ["b"]}, "stop is not served"),
        ({"prompt": [1, 2]}, "token ids"),
        ({"prompt": "a", "model": "other"}, "the model is 'parrot'"),
        ({"prompt": "a", "max_tokens": -1}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": "a", "stream": "yes"}, "stream must be"),
        ({}, "prompt must be"),
    ],
)
def test_what_is_refused(body: dict[str, Any], named: str) -> None:
    status, text = asked("/v1/completions", body)
    assert (status, named in text) == (400, True)


def test_failures_of_the_engine() -> None:
    """Before the first piece a status, after it an event; never a short answer."""
    assert asked("/v1/completions", {"prompt": "fail", "stream": True})[0] == 500
    assert asked("/v1/completions", {"prompt": "a fail"})[0] == 500
    status, text = asked("/v1/completions", {"prompt": "a fail", "stream": True})
    assert status == 200
    assert '"message": "it failed"' in text
    assert "[DONE]" not in text


def test_an_answer_nobody_reads_is_stopped() -> None:
    async def main() -> None:
        parrot = Parrot()
        async with served(parrot) as (url, session):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await session.post(f"{url}/v1/completions", json={"prompt": "hang"})
            async with asyncio.timeout(5):
                while not parrot.abandoned:
                    await asyncio.sleep(0.01)

    asyncio.run(main())


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """`wattbench serve` on a free port: its URL."""
    command = [sys.executable, "-m", "wattbench", "serve", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[1]
        finally:
            server.terminate()


def test_the_command_serves_the_embedded_engine(tmp_path: Path) -> None:
    """A run against it: every token counted by its usage, texts streamed piece by piece."""
    pytest.importorskip("openvino_genai")
    with serving() as url:
        body = {"prompt": "good day", "max_tokens": 8, "ignore_eos": True}
        whole = json.loads(post(f"{url}/v1/completions", body))
        streamed = post(f"{url}/v1/completions", body | {"stream": True})
        point = run_point(tmp_path, url, duration_s=3.0)
        assert get(f"{url}/v1/models")["data"][0]["id"] == "demo-llama-46m"
    lines = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    pieces = [line["choices"][0]["text"] for line in lines]
    assert len(pieces) == 9
    assert "".join(pieces) == whole["choices"][0]["text"]
    assert whole["usage"]["completion_tokens"] == 8
    assert point["requests"]["failed"] == 0
    assert point["tokens"]["output"] > 20


def test_a_backend_without_text_is_not_served() -> None:
    command = [sys.executable, "-m", "wattbench", "serve", "--backend", "emulated"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "wattbench emulate" in done.stderr
