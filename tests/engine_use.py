"""How the tests of embedded engines ask one, and use it in an event loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from wattbench.core.load import InferenceRequest, Message, TokenChunk
from wattbench.core.protocols import Backend

B = TypeVar("B", bound=Backend)


def request(index: int = 0, inputs: int = 8, outputs: int = 6, **more: Any) -> InferenceRequest:
    """A request with one synthetic message."""
    messages = (Message(role="user", tokens=inputs, seed=more.pop("prompt_seed", index)),)
    more = {"messages": messages, "max_output_tokens": outputs, **more}
    return InferenceRequest(index=index, session_index=index, turn_index=0, **more)


async def answer(opened: Backend, asked: InferenceRequest) -> list[TokenChunk]:
    """All chunks of an answer."""
    return [chunk async for chunk in opened.generate(asked)]


def run(engine: B, use: Callable[[B], Awaitable[Any]]) -> Any:
    """Open, use and close a backend."""

    async def whole() -> Any:
        try:
            await engine.open()
            return await use(engine)
        finally:
            await engine.close()

    return asyncio.run(whole())
