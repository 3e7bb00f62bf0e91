"""A server that answers at once: what is left is the client's own time.

It speaks the streaming part of the OpenAI API. Every chunk's text is the monotonic time at which it
was written, which is the client's clock too on one machine, so that a client can tell how late it
stamps. ``gap_s`` lets time pass between chunks; 0 means as fast as the socket takes them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from aiohttp import web

from wattbench.core.errors import WattbenchError


class InstantServer:
    """Streams ``max_tokens`` chunks to whoever asks.

    Args:
        gap_s: Time between two chunks of a stream [s].
    """

    def __init__(self, gap_s: float = 0.0) -> None:
        self._gap_s = gap_s

    def application(self) -> web.Application:
        """The routes."""
        application = web.Application()
        application.add_routes(
            [web.get("/v1/models", self._models), web.post("/v1/completions", self._answer)]
        )
        return application

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "instant"}]})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        count = int(asked["max_tokens"])
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for number in range(count):
            if self._gap_s and number:
                await asyncio.sleep(self._gap_s)
            text = f"{time.monotonic():.6f} "
            await answer.write(_event({"choices": [{"index": 0, "text": text}]}))
        usage = {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}
        await answer.write(_event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")
        await answer.write_eof()
        return answer


def _event(body: object) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


async def _serve(gap_s: float) -> None:
    runner = web.AppRunner(InstantServer(gap_s).application(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    except OSError as error:
        raise WattbenchError(f"no port of the loopback interface can be opened: {error}") from error
    sys.stdout.write(f"ready http://127.0.0.1:{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    # It lives as long as whoever started it holds its standard input.
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1]) if len(sys.argv) > 1 else 0.0))
