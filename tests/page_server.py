"""A page on loopback whose text the test changes, with what else a server may answer."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class PageServer:
    """Serves what ``page`` returns; each request has a connection of its own.

    Attributes:
        page: Makes the text, at each request; may be exchanged while it serves.
        status: What it answers with.
        login: ``USER:PASSWORD`` without which it answers 401; None: none.
        paths: What was asked for.
        url: Where it listens.
    """

    def __init__(self, page: Callable[[], str]) -> None:
        self.page, self.status = page, 200
        self.login: str | None = None
        self.paths: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.paths.append(self.path)
                self.send_response(server.answer(self.headers.get("Authorization")))
                self.end_headers()
                self.wfile.write(server.page().encode())

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self._thread.start()

    def answer(self, sent: str | None) -> int:
        """The status, for what the client sent as its login."""
        if self.login is None:
            return self.status
        wanted = f"Basic {base64.b64encode(self.login.encode()).decode()}"
        return self.status if sent == wanted else 401

    def close(self) -> None:
        """Stop listening: from then on connections are refused."""
        if self._thread.is_alive():
            self.http.shutdown()
            self._thread.join()
            self.http.server_close()


@contextmanager
def serving(page: Callable[[], str]) -> Iterator[PageServer]:
    """Run a server."""
    server = PageServer(page)
    try:
        yield server
    finally:
        server.close()
