"""How the tests of the backend ``openai`` talk to the scripted server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from openai_server import OpenAIServer, Script

from wattbench.backends.http_client import HttpClient
from wattbench.backends.openai import OpenAIBackend, OpenAIOptions
from wattbench.core.errors import BackendError
from wattbench.core.load import InferenceRequest, Message, TokenChunk
from wattbench.core.protocols import Backend
from wattbench.core.run import EngineInfo
from wattbench.plugins import PluginContext

CONTEXT = PluginContext(hardware=None, seed=0)
KEY = "sk-hunter2/+key_0123456789"
KEY_ENV = "WATTBENCH_TEST_KEY"
"""Not the usual variable: the tester's own key must not reach a test."""

Answers = tuple[list[TokenChunk], OpenAIServer, OpenAIBackend]


def a_backend(url: str, **options: Any) -> OpenAIBackend:
    usual = {"url": url, "key_env": KEY_ENV, "exact_lengths": "off"}
    return OpenAIBackend(OpenAIOptions(**usual | options), CONTEXT)


@contextlib.asynccontextmanager
async def a_client(url: str) -> AsyncIterator[HttpClient]:
    """A bare client of a server."""
    client = HttpClient(urlsplit(url), None, connect_s=5.0, silence_s=60.0)
    try:
        yield client
    finally:
        await client.close()


def a_request(tokens: int = 4, **changes: Any) -> InferenceRequest:
    request = InferenceRequest(
        index=0,
        session_index=0,
        turn_index=0,
        messages=(Message(role="user", tokens=5, seed=1),),
        max_output_tokens=tokens,
    )
    return replace(request, **changes)


@contextlib.asynccontextmanager
async def opened(server: OpenAIServer, **options: Any) -> AsyncIterator[OpenAIBackend]:
    backend = a_backend(**{"url": server.url} | options)
    try:
        await backend.open()
        yield backend
    finally:
        await backend.close()


async def answer(backend: Backend, request: InferenceRequest | None = None) -> list[TokenChunk]:
    return [chunk async for chunk in backend.generate(request or a_request())]


def answers(script: Script, request: InferenceRequest | None = None, **options: Any) -> Answers:
    """What one request yields under a script, with the server and the backend."""

    async def main() -> Answers:
        async with OpenAIServer(script) as server, opened(server, **options) as backend:
            return await answer(backend, request), server, backend

    return asyncio.run(main())


def failure(script: Script, **options: Any) -> tuple[BackendError, list[TokenChunk]]:
    """The error of one request under a script, and what came before it."""

    async def main() -> tuple[BackendError, list[TokenChunk]]:
        chunks: list[TokenChunk] = []

        async def collect(backend: Backend) -> None:
            async for chunk in backend.generate(a_request()):
                chunks.append(chunk)  # one by one: what came before the error counts

        async with OpenAIServer(script) as server, opened(server, **options) as backend:
            with pytest.raises(BackendError) as caught:
                await collect(backend)
            return caught.value, chunks

    return asyncio.run(main())


def open_info(script: Script, **options: Any) -> tuple[EngineInfo, str]:
    """What ``open`` tells under a script, and the server's URL."""

    async def main() -> tuple[EngineInfo, str]:
        async with OpenAIServer(script) as server:
            backend = a_backend(server.url, **options)
            info = await backend.open()
            await backend.close()
            return info, server.url

    return asyncio.run(main())


def open_failure(script: Script, path: str = "", **options: Any) -> BackendError:
    """The error of ``open`` under a script."""

    async def main() -> BackendError:
        async with OpenAIServer(script) as server:
            with pytest.raises(BackendError) as caught:
                async with opened(server, **{"url": server.url + path} | options):
                    pass
            return caught.value

    return asyncio.run(main())
