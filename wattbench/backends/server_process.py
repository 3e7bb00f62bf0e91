"""An engine's own server, started for a run: from a command to a URL that answers, and to its end.

The server gets a process group of its own, so that its workers end with it, and a log file that is
kept. It is ready when its URL answers with HTTP 200; a server that ends before, or is not ready in
time, is an error with the last lines of its log.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import socket
import string
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import aiohttp

from wattbench.core.errors import BackendError, UsageError, did_you_mean

POLL_S = 0.25
STOP_S = 30.0
"""Longest wait for a server that was told to end [s]; then it is killed."""
LOG_LINES = 8
"""Lines of the log that an error shows."""
_SECRET = re.compile(r"(--?[\w-]*(?:key|token|secret|password)[\w-]*[ =])(\S+)", re.IGNORECASE)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def filled(template: str, values: Mapping[str, str]) -> str:
    """A template with its ``{name}`` fields filled in.

    Raises:
        UsageError: If a field has no value, naming it, or a brace is left open.
    """
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise UsageError(f"{template!r}: {error}; write {{{{ and }}}} for braces") from error
    missing = [name for name in names if name not in values]
    if missing:
        hint = did_you_mean(missing[0], list(values))
        raise UsageError(
            f"{template!r}: {{{missing[0]}}} has no value{hint} (there are {', '.join(values)}); "
            f"give it with --sweep serve.{missing[0]}=…"
        )
    return template.format(**values)


def without_secrets(command: str) -> str:
    """A command as it may be stored: values of options that hold a key are left out."""
    return _SECRET.sub(r"\1…", command)


class ServerProcess:
    """One server.

    Args:
        command: What to start, as a shell would split it; no shell is used.
        url: What answers with HTTP 200 when it is ready.
        log: Where its output goes.
        timeout_s: Longest wait until it is ready [s].
    """

    def __init__(self, command: str, url: str, log: Path, timeout_s: float) -> None:
        try:
            self._arguments = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"--serve {command!r}: {error}") from error
        if not self._arguments:
            raise UsageError("--serve is empty; give the command that starts the server")
        self.command = without_secrets(command)
        self.log = log
        self._url = url
        self._timeout_s = timeout_s
        self._process: asyncio.subprocess.Process | None = None

    async def start_s(self) -> float:
        """Start it and wait until it answers; how long that took [s].

        Raises:
            BackendError: If it cannot be started, ends, or is not ready in time.
        """
        begun_s = time.monotonic()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._arguments, stdout=log, stderr=log, start_new_session=True
                )
            except OSError as error:
                raise BackendError(
                    f"--serve cannot start {self._arguments[0]!r}: {error.strerror}"
                ) from error
        timeout = aiohttp.ClientTimeout(total=2.0)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while not await self._answers(session):
                if self._process.returncode is not None:
                    code = self._process.returncode
                    raise BackendError(f"the server ended with exit code {code}{self._tail()}")
                if time.monotonic() - begun_s > self._timeout_s:
                    await self.stop()
                    raise BackendError(
                        f"the server does not answer at {self._url} after {self._timeout_s:.0f} s"
                        f"{self._tail()}"
                    )
                await asyncio.sleep(POLL_S)
        return time.monotonic() - begun_s

    async def _answers(self, session: aiohttp.ClientSession) -> bool:
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with session.get(self._url) as response:
                # A server that wants a key is there.
                return response.status in (200, 401, 403)
        return False

    async def stop(self) -> None:
        """End it and everything that it started."""
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            pass
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    def _tail(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        except OSError:
            return ""
        shown = without_secrets("\n".join(lines)).strip()
        return f"; its log ({self.log}) ends with:\n{shown}" if shown else f"; see {self.log}"
