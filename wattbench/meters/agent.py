"""The meters of another host, streamed by ``wattbench agent`` there.

The agent stamps samples on its own clock. How far that is from the run clock is found by round
trips, as NTP does: a trip that leaves at t₀, meets the agent's clock at s and is back at t₁ says

    offset = s − (t₀ + t₁) / 2   ± (t₁ − t₀) / 2

and the shortest trip says most. Trips go on during the run, and an estimate ages by 50 ppm, what an
undisciplined quartz may drift. The half-width that is left is the domains' ``clock_half_width_s``;
offset, half-width and how far the two wall clocks differ are kept as the event ``agent_clock``.

Domains are called ``NAME/gpu:0`` after the agent's name in the run: the URL's host, or ``name=``.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from wattbench.core.energy import EnergyDomain
from wattbench.core.errors import MeterError
from wattbench.core.protocols import TraceSink
from wattbench.meters.agent_wire import (
    DEFAULT_PORT,
    PATH,
    TOKEN_ENV,
    VERSION,
    machine_id,
    read_domain,
)
from wattbench.plugins import PluginContext, option

FIRST_TRIPS, FIRST_TRIP_S = 12, 0.01
"""Round trips before the start, and the time between two [s]."""
TRIP_PERIOD_S = 1.0
"""Time between two round trips during the run [s]."""
DRIFT_FRACTION = 50e-6
"""How fast an estimate ages: seconds of doubt per second."""
DRIFT_HORIZON_S = 10.0
"""How old an estimate gets, for the half-width that is declared at the start [s]."""
START_S, STOP_S = 30.0, 20.0
"""Longest wait for the agent's meters to start, and to end [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """Options of ``--meter agent``."""

    url: str = option(f"http://127.0.0.1:{DEFAULT_PORT}", "where the agent listens")
    name: str | None = option(None, "the host's name in the run; none: the host of the URL")
    token_env: str = option(TOKEN_ENV, "environment variable that holds the agent's token")
    ca: str | None = option(None, "file of the certificate authority; none: the system's")
    engine_port: int | None = option(
        None, "port of the engine on that host, to find its devices; none: from --backend"
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be reached."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url={self.url!r} must begin with http:// or https://")
        if self.name is not None and (not self.name or set(self.name) & set("/,:")):
            raise ValueError(f"name={self.name!r} must be a word without / , and :")


@dataclass(slots=True)
class ClockOffset:
    """The other clock's time minus ours, from round trips."""

    offset_s: float = 0.0
    half_width_s: float = math.inf
    at_s: float = 0.0

    def trip(self, left_s: float, other_s: float, back_s: float) -> None:
        """Take in a round trip, if it says more than what is known by now.

        Args:
            left_s: When it left, on our clock [s].
            other_s: What the other clock showed [s].
            back_s: When it was back, on our clock [s].
        """
        half_width_s = (back_s - left_s) / 2
        if half_width_s <= self.half_width_at_s(back_s):
            self.offset_s = other_s - (left_s + back_s) / 2
            self.half_width_s, self.at_s = half_width_s, back_s

    def half_width_at_s(self, now_s: float) -> float:
        """Half-width of the offset by now [s]."""
        return self.half_width_s + DRIFT_FRACTION * max(0.0, now_s - self.at_s)


class AgentMeter:
    """Reads the meters of another host through ``wattbench agent``."""

    Options = AgentOptions

    def __init__(self, options: AgentOptions, context: PluginContext) -> None:
        self._options = options
        self._host = options.name or urlsplit(options.url).hostname or ""
        self._engine_port = options.engine_port or _engine_port(context, options.url)
        self._offset = ClockOffset()
        self._last_s: dict[str, float] = {}
        self._trips: dict[int, float] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = asyncio.Event()
        self._started = asyncio.Event()
        self._same_machine = False
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._error: str | None = None
        self._wall_offset_s = 0.0

    @staticmethod
    def availability() -> str | None:
        """Always usable; whether an agent answers shows when it starts."""
        return None

    async def start(self, sink: TraceSink) -> None:
        """Connect, compare clocks, and let samples come.

        Raises:
            MeterError: If no agent answers, or its meters do not start.
        """
        self._sink = sink
        self._session = aiohttp.ClientSession()
        try:
            await self._connect()
            await self._compare_clocks()
            self._note_clock()
            await self._say({"start": {"engine_port": self._engine_port}})
            self._tasks = [asyncio.create_task(self._listen())]
            await self._wait(self._started, START_S, "has not started its meters")
            if self._error is not None:
                raise MeterError(f"the agent at {self._options.url} cannot measure: {self._error}")
            self._tasks.append(asyncio.create_task(self._keep_comparing()))
        except BaseException:
            await self._close()
            raise

    async def stop(self) -> None:
        """Let the agent's meters end, and take what is left.

        Raises:
            MeterError: If the agent went away or one of its meters failed.
        """
        try:
            with suppress(ConnectionError):
                await self._say({"stop": True})
            await self._wait(self._ended, STOP_S, "has not ended its meters")
            self._note_clock()
        finally:
            await self._close()
        if self._error is not None:
            raise MeterError(f"agent at {self._options.url}: {self._error}")

    async def _connect(self) -> None:
        token = (os.environ.get(self._options.token_env) or "").strip()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = self._options.url.rstrip("/") + PATH
        start = f"Start one on the measured host: wattbench agent --port {urlsplit(url).port}"
        try:
            secure = self._tls() if url.startswith("https") else True
            self._socket = socket = await self._session.ws_connect(
                url, headers=headers, ssl=secure, heartbeat=10.0, max_msg_size=1 << 24
            )
            hello = json.loads(await socket.receive_str(timeout=10.0))["hello"]
        except aiohttp.WSServerHandshakeError as error:
            if error.status == 401:
                raise MeterError(
                    f"the agent at {self._options.url} wants another token",
                    f"Put the token it was started with into {self._options.token_env}.",
                ) from error
            message = f"{self._options.url} answers with HTTP {error.status}: that is no agent"
            raise MeterError(message, start) from error
        except aiohttp.ClientSSLError as error:
            raise MeterError(
                f"the certificate of {self._options.url} is not trusted: {error}",
                "Name its authority, or the certificate itself: ca=FILE.",
            ) from error
        except aiohttp.ServerDisconnectedError as error:
            raise MeterError(
                f"{self._options.url} hangs up",
                "An agent with TLS is reached by https://.",
            ) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise MeterError(f"no agent answers at {self._options.url}: {why}", start) from error
        except (ValueError, KeyError, TypeError) as error:
            raise MeterError(f"{self._options.url} is no agent of wattbench", start) from error
        if hello.get("version") != VERSION:
            raise MeterError(
                f"the agent at {self._options.url} speaks version {hello.get('version')}, not "
                f"{VERSION}",
                "Install the same wattbench on both hosts.",
            )
        self._same_machine = hello.get("machine") == machine_id()
        address = urlsplit(self._options.url).hostname
        self._sink.note("agent", host=self._host, address=address, hostname=hello.get("host"))

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._options.ca)
        except (OSError, ssl.SSLError) as error:
            reason = f"ca={self._options.ca} cannot be read as certificates: {error}"
            raise MeterError(reason, "Name a PEM file.") from error

    async def _compare_clocks(self) -> None:
        assert self._socket is not None
        for number in range(FIRST_TRIPS):
            await self._ping(number)
            try:
                self._heed(json.loads(await self._socket.receive_str(timeout=10.0)))
            except (TypeError, ValueError, TimeoutError) as error:
                raise MeterError(f"the agent at {self._options.url} does not answer") from error
            await asyncio.sleep(FIRST_TRIP_S)

    async def _keep_comparing(self) -> None:
        number = FIRST_TRIPS
        while True:
            await asyncio.sleep(TRIP_PERIOD_S)
            with suppress(ConnectionError):
                await self._ping(number)
            number += 1

    async def _ping(self, number: int) -> None:
        self._trips[number] = self._sink.now_s()
        await self._say({"ping": number})

    async def _listen(self) -> None:
        assert self._socket is not None
        try:
            async for message in self._socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    self._heed(json.loads(message.data))
        except (ValueError, KeyError, TypeError) as error:
            self._error = f"it says what is no message of an agent ({error})"
        except MeterError as error:
            self._error = str(error)
        finally:
            if not self._ended.is_set():
                gone = f"it went away after {self._sink.now_s():.1f} s of the run"
                self._error = self._error or gone
            self._started.set()
            self._ended.set()

    def _heed(self, message: dict[str, Any]) -> None:
        if "pong" in message:
            left_s, back_s = self._trips.pop(message["pong"]), self._sink.now_s()
            self._offset.trip(left_s, message["clock_s"], back_s)
            self._wall_offset_s = message["unix_s"] - (time.time() - (back_s - left_s) / 2)
        elif "declare" in message:
            for one in message["declare"]:
                self._sink.declare(self._domain(read_domain(one)))
        elif "samples" in message:
            for name, (times, values) in message["samples"].items():
                self._hand_on(f"{self._host}/{name}", times, values)
            self._started.set()
        elif "note" in message:
            detail = message["note"]["detail"]
            if "domain" in detail:
                detail["domain"] = f"{self._host}/{detail['domain']}"
            self._sink.note(message["note"]["kind"], **detail | {"host": self._host})
        elif "end" in message:
            self._error = message["end"]["error"]
            self._ended.set()

    def _domain(self, domain: EnergyDomain) -> EnergyDomain:
        """A domain of the agent as one of the run."""
        half_width_s = self._offset.half_width_s + DRIFT_FRACTION * DRIFT_HORIZON_S
        return replace(
            domain,
            name=f"{self._host}/{domain.name}",
            parent=None if domain.parent is None else f"{self._host}/{domain.parent}",
            host=self._host,
            on_client_host=self._same_machine and domain.on_client_host,
            clock_half_width_s=domain.clock_half_width_s + half_width_s,
        )

    def _hand_on(self, name: str, times: list[float], values: list[float | None]) -> None:
        latest_s = self._sink.now_s()
        shown_s = []
        for time_s in times:
            run_s = min(time_s - self._offset.offset_s, latest_s)
            self._last_s[name] = max(run_s, self._last_s.get(name, -math.inf))
            shown_s.append(self._last_s[name])
        self._sink.sample(name, shown_s, [math.nan if v is None else v for v in values])

    def _note_clock(self) -> None:
        self._sink.note(
            "agent_clock",
            host=self._host,
            offset_s=self._offset.offset_s,
            half_width_s=self._offset.half_width_at_s(self._sink.now_s()),
            wall_offset_s=self._wall_offset_s,
        )

    async def _wait(self, event: asyncio.Event, limit_s: float, what: str) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await event.wait()
        except TimeoutError as error:
            raise MeterError(
                f"the agent at {self._options.url} {what} within {limit_s:.0f} s"
            ) from error

    async def _say(self, message: dict[str, Any]) -> None:
        assert self._socket is not None
        await self._socket.send_str(json.dumps(message))

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if self._socket is not None:
            await self._socket.close()
        await self._session.close()


def _engine_port(context: PluginContext, url: str) -> int | None:
    """Port of the run's engine, if it answers on the agent's host."""
    tell: Callable[[], tuple[str, int]] | None = getattr(context.backend, "address", None)
    if tell is None:
        return None
    host, port = tell()
    return port if host == urlsplit(url).hostname else None  # an engine elsewhere is not ours
