"""The agent: a small server on the measured host that streams what its meters say."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web

from wattbench.core.energy import EnergyDomain, FloatArray
from wattbench.core.errors import MeterError, WattbenchError
from wattbench.core.protocols import Meter
from wattbench.core.run import Json
from wattbench.hardware import listening_process_ids
from wattbench.meters.agent_wire import (
    FLUSH_S,
    PATH,
    VERSION,
    domain_message,
    machine_id,
    samples_message,
)

PROCESSES_S = 5.0
"""How often the engine's processes are looked for [s]."""
MakeMeters = Callable[[], Sequence[Meter]]


class _Buffer:
    """A trace sink that keeps messages until they are sent; its clock is the agent's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.now_s = clock
        self._lock = threading.Lock()
        self._messages: list[dict[str, Any]] = []
        self._samples: dict[str, tuple[list[float], list[float]]] = {}

    def declare(self, domain: EnergyDomain) -> None:
        with self._lock:
            self._messages.append({"declare": [domain_message(domain)]})

    def sample(
        self,
        domain: str,
        time_s: Sequence[float] | FloatArray,
        value: Sequence[float] | FloatArray,
    ) -> None:
        with self._lock:
            times, values = self._samples.setdefault(domain, ([], []))
            times.extend(np.asarray(time_s, np.float64).tolist())
            values.extend(np.asarray(value, np.float64).tolist())

    def note(self, kind: str, **detail: Json) -> None:
        with self._lock:
            self._messages.append({"note": {"kind": kind, "detail": detail}})

    def take(self) -> list[dict[str, Any]]:
        """Everything since the last call, domains before their samples."""
        with self._lock:
            messages, samples = self._messages, self._samples
            self._messages, self._samples = [], {}
        return [*messages, {"samples": samples_message(samples)}] if samples else messages


class AgentServer:
    """Serves meters over WebSocket, one set of them per client.

    Args:
        make_meters: Builds the meters of one client.
        token: What a client must show; None: nothing.
        skew_s: Added to the agent's clocks, to test what a wrong clock does [s].
    """

    def __init__(self, make_meters: MakeMeters, token: str | None, skew_s: float = 0.0) -> None:
        self._make_meters = make_meters
        self._token = token
        self._skew_s = skew_s
        self._sockets: set[web.WebSocketResponse] = set()

    def application(self) -> web.Application:
        """The routes."""
        application = web.Application()
        application.add_routes([web.get(PATH, self._serve)])
        application.on_shutdown.append(self._close_sockets)
        return application

    async def _close_sockets(self, _application: web.Application) -> None:
        for one in set(self._sockets):
            await one.close(code=1001, message=b"the agent was stopped")

    def _clock_s(self) -> float:
        return asyncio.get_running_loop().time() + self._skew_s

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if self._token is not None and not hmac.compare_digest(
            shown.encode(), self._token.encode()
        ):
            return web.json_response({"error": "the token is missing or wrong"}, status=401)
        if "Origin" in request.headers:  # no page in a browser has business here
            return web.json_response({"error": "not for browsers"}, status=403)
        answer = web.WebSocketResponse(heartbeat=10.0, max_msg_size=1 << 16)
        await answer.prepare(request)
        self._sockets.add(answer)
        try:
            await _Client(answer, self).talk()
        finally:
            self._sockets.discard(answer)
        return answer


class _Client:
    """One client and its meters."""

    def __init__(self, answer: web.WebSocketResponse, server: AgentServer) -> None:
        self._answer = answer
        self._server = server
        loop, skew_s = asyncio.get_running_loop(), server._skew_s
        self._buffer = _Buffer(lambda: loop.time() + skew_s)
        self._meters: list[Meter] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def talk(self) -> None:
        hello = {"version": VERSION, "host": socket.gethostname(), "machine": machine_id()}
        await self._say({"hello": hello})
        try:
            async for message in self._answer:
                if message.type != WSMsgType.TEXT:
                    return
                await self._heed(json.loads(message.data))
        except (ValueError, TypeError, AttributeError):
            await self._answer.close(code=1007, message=b"that is no message of a client")
        except ConnectionError:
            return  # the client is gone
        finally:
            await self._stop()

    async def _heed(self, message: dict[str, Any]) -> None:
        if "ping" in message:
            unix_s = time.time() + self._server._skew_s
            pong = {"pong": message["ping"], "clock_s": self._buffer.now_s(), "unix_s": unix_s}
            await self._say(pong)
        elif "start" in message and not self._tasks:
            await self._start(message["start"].get("engine_port"))
        elif "stop" in message:
            error = await self._stop()
            await self._flush()
            await self._say({"end": {"error": error}})
            await self._answer.close()

    async def _start(self, engine_port: int | None) -> None:
        try:
            for meter in self._server._make_meters():
                await meter.start(self._buffer)
                self._meters.append(meter)
        except WattbenchError as error:
            await self._say({"end": {"error": str(error)}})
            await self._answer.close()
            return
        await self._flush()
        self._tasks.append(asyncio.create_task(self._flush_for_ever()))
        if engine_port is not None:
            self._tasks.append(asyncio.create_task(self._watch_engine(int(engine_port))))

    async def _stop(self) -> str | None:
        """Stop the meters; why one of them failed, if one did."""
        error = None
        meters, self._meters = self._meters, []
        for meter in meters:
            try:
                await meter.stop()
            except MeterError as failure:
                error = error or str(failure)
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await task
        return error

    async def _watch_engine(self, port: int) -> None:
        known: tuple[int, ...] = ()
        while True:
            found = await asyncio.to_thread(listening_process_ids, port)
            if found != known:
                known = found
                self._buffer.note("engine_processes", process_ids=list(found))
            await asyncio.sleep(PROCESSES_S)

    async def _flush_for_ever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            await self._flush()

    async def _flush(self) -> None:
        for message in self._buffer.take():
            await self._say(message)

    async def _say(self, message: dict[str, Any]) -> None:
        await self._answer.send_str(json.dumps(message, allow_nan=False))


async def serve_agent(
    server: AgentServer,
    host: str,
    port: int,
    tls: tuple[str, str] | None,
    on_ready: Callable[[str], None],
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        server: What to serve.
        host: Address to listen at.
        port: Where; 0 picks a free one.
        tls: Files of certificate chain and key; None: no TLS.
        on_ready: Called with the URL once connections are accepted.

    Raises:
        WattbenchError: If the port cannot be opened or a certificate cannot be read.
    """
    context = None
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(*tls)
        except (OSError, ssl.SSLError) as error:
            raise WattbenchError(f"certificate {tls[0]}, key {tls[1]}: {error}") from error
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port, ssl_context=context).start()
        except OSError as error:
            raise WattbenchError(
                f"{host}:{port} cannot be opened: {os.strerror(error.errno or 0)}; choose another "
                f"--port, or 0 for a free one"
            ) from error
        scheme = "http" if tls is None else "https"
        on_ready(f"{scheme}://{host}:{runner.addresses[0][1]}")
        await stopped.wait()
    finally:
        await runner.cleanup()
