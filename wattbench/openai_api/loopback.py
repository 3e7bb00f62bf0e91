"""A web application on the loopback interface, until SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from aiohttp import web

from wattbench.core.errors import WattbenchError

BACKLOG = 1024
"""Connections that may wait to be accepted: a thousand users start at once."""


async def serve(application: web.Application, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until the process is asked to end.

    Args:
        application: What to serve.
        port: Where; 0 picks a free one.
        on_ready: Called with the base URL once connections are accepted.

    Raises:
        WattbenchError: If the port cannot be opened.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    runner = web.AppRunner(
        application, access_log=None, shutdown_timeout=1.0, handler_cancellation=True
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, "127.0.0.1", port, backlog=BACKLOG).start()
        except OSError as error:
            raise WattbenchError(
                f"port {port} cannot be opened: {error.strerror}; choose another, or --port 0"
            ) from error
        on_ready(f"http://127.0.0.1:{runner.addresses[0][1]}")
        await stopped.wait()
    finally:
        await runner.cleanup()
