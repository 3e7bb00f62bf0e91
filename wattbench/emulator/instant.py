"""A server that answers at once: what is left is the client's own time.

It speaks the streaming part of the OpenAI API. Every chunk's text is the monotonic time at which it
was written, which is the client's clock too on one machine, so that a client can tell how late it
stamps. ``gap_s`` lets time pass between chunks; 0 sends them all in one piece. It is made to be
faster than any client: httptools parses, and nothing but the length of an answer is looked at.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from dataclasses import dataclass

import httptools

_MAX_TOKENS = re.compile(rb'"max(?:_completion)?_tokens":\s*(\d+)')
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_MODELS = b'{"object": "list", "data": [{"id": "instant", "object": "model"}]}'
_TEXT = b'data: {"id":"c","object":"%s","choices":[{"index":0,"%s,"finish_reason":null}]}\n\n'
_END = (
    b'data: {"id":"c","object":"%s","choices":[{"index":0,"%s,"finish_reason":"length"}]}\n\n'
    b'data: {"id":"c","object":"%s","choices":[],"usage":'
    b'{"prompt_tokens":1,"completion_tokens":%d,"total_tokens":%d}}\n\ndata: [DONE]\n\n'
)


@dataclass(slots=True)
class _Counts:
    """What was answered so far; ``GET /count`` tells it."""

    requests: int = 0
    chunks: int = 0


class _Face(asyncio.Protocol):
    """One connection."""

    def __init__(self, gap_s: float, counts: _Counts) -> None:
        self._gap_s = gap_s
        self._counts = counts
        self._path = b""
        self._body = b""
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path, self._body = url, b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._parser.get_method() == b"GET":
            told = b'{"requests": %d, "chunks": %d}' % (self._counts.requests, self._counts.chunks)
            body = told if self._path == b"/count" else _MODELS
            self._write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
            self._write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            return
        found = _MAX_TOKENS.search(self._body)
        count = int(found[1]) if found else 1
        chat = b"chat" in self._path
        self._counts.requests += 1
        self._counts.chunks += count
        if not self._gap_s:
            chunks = b"".join(_chunk(_text(chat)) for _ in range(count))
            self._write(_HEAD + chunks + _chunk(_end(chat, count)) + b"0\r\n\r\n")
            return
        self._write(_HEAD)
        self._tick(chat, count, count)

    def _tick(self, chat: bool, left: int, count: int) -> None:
        """Write the next chunk, and come again after the gap."""
        if self._transport is None or self._transport.is_closing():
            return
        self._write(_chunk(_text(chat)))
        if left > 1:
            loop = asyncio.get_running_loop()
            loop.call_later(self._gap_s, self._tick, chat, left - 1, count)
        else:
            self._write(_chunk(_end(chat, count)) + b"0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _said(chat: bool, text: bytes) -> tuple[bytes, bytes]:
    """The object's name, and the field with a text."""
    if chat:
        return b"chat.completion.chunk", b'delta":{"content":"%s"}' % text
    return b"text_completion", b'text":"%s"' % text


def _text(chat: bool) -> bytes:
    return _TEXT % _said(chat, b"%.6f " % time.monotonic())


def _end(chat: bool, count: int) -> bytes:
    name, nothing = _said(chat, b"")
    return _END % (name, nothing, name, count, count + 1)


async def _serve(gap_s: float) -> None:
    loop = asyncio.get_running_loop()
    counts = _Counts()
    server = await loop.create_server(lambda: _Face(gap_s, counts), "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(f"ready http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    # It lives as long as whoever started it holds its standard input.
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1]) if len(sys.argv) > 1 else 0.0))
