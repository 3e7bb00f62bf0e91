"""What backends with an engine in a process of their own have in common."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

from wattbench.backends.engine_child import Engine
from wattbench.backends.engine_messages import Ended, Part, Ready
from wattbench.backends.engine_process import Died, EngineProcess
from wattbench.core.errors import BackendError, EngineDied
from wattbench.core.load import InferenceRequest, TokenChunk, Usage


class EngineBackend:
    """Starts the engine's process, passes requests to it, and stops it.

    Args:
        name: Name of the backend, for messages.
        cached_tokens: What is known of the prompt tokens from a cache: 0 without one, else None.
    """

    def __init__(self, name: str, cached_tokens: int | None) -> None:
        self._name = name
        self._cached_tokens = cached_tokens
        self._process: EngineProcess | None = None

    async def start(
        self, load: Callable[[Any, int], Engine], settings: object, what: str
    ) -> tuple[Ready, int]:
        """Load the engine in a new process; what it says of itself, and the process.

        Args:
            load: Loads it in the child; a function of a module.
            settings: What is loaded.
            what: The same for a reader, after "cannot load".

        Raises:
            BackendError: If it cannot be loaded.
        """
        try:
            process = EngineProcess(load, settings)
        except OSError as error:
            raise BackendError(f"{self._name}: no process for the engine: {error}") from error
        try:
            ready = await process.ready()
        except BackendError as error:
            await process.stop()
            raise type(error)(f"{self._name}: the engine cannot load {what}: {error}") from error
        except BaseException:
            # Interrupted while loading: the child does not listen before it is done.
            await process.stop(grace_s=0.0)
            raise
        self._process = process
        return ready, process.pid

    async def generate(self, request: InferenceRequest) -> AsyncGenerator[TokenChunk, None]:
        """Answer one request; the last chunk has no tokens, but the text and the counts.

        Raises:
            BackendError: If the engine refuses the request or cannot finish it.
            EngineDied: If the engine's process is gone.
        """
        process = self._process
        if process is None:
            raise BackendError(f"{self._name}: the backend is not open")
        parts = tuple(Part(part.text, part.tokens, part.seed) for part in request.messages)
        ident, answers = process.submit(parts, request.max_output_tokens, request.ignore_eos)
        try:
            while not isinstance(answer := await answers.get(), Ended):
                if isinstance(answer, Died):
                    raise EngineDied(f"{self._name}: the engine's process {answer.text}")
                yield TokenChunk(tokens=answer.tokens, text=answer.text)
            yield self._last_chunk(answer)
        finally:
            process.release(ident)

    async def close(self) -> None:
        """End the engine's process."""
        process, self._process = self._process, None
        if process is not None:
            await process.stop()

    def _last_chunk(self, ended: Ended) -> TokenChunk:
        if ended.error is not None:
            raise BackendError(f"{self._name}: {ended.error}")
        usage = Usage(
            input_tokens=ended.input_tokens,
            output_tokens=ended.output_tokens,
            cached_tokens=self._cached_tokens,
            finish_reason=ended.finish_reason,
        )
        return TokenChunk(tokens=0, text=ended.text, usage=usage)


def missing(packages: Mapping[str, str], install: str) -> str | None:
    """Which packages are not installed, by module, and what installs them; None if all are."""
    lacking = [
        name for module, name in packages.items() if importlib.util.find_spec(module) is None
    ]
    return f"{', '.join(lacking)} not installed; {install}" if lacking else None


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def model_name(path: Path) -> str:
    """The name of a model from its file or folder."""
    return path.resolve().name if path.is_dir() else path.stem
