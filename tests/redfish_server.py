"""A Redfish service on loopback, from a dictionary of documents."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Tree = dict[str, Any]


def link(path: str) -> dict[str, str]:
    """A reference to another document."""
    return {"@odata.id": path}


def collection(*paths: str) -> dict[str, Any]:
    """A list of references."""
    return {"Members": [link(path) for path in paths], "Members@odata.count": len(paths)}


class RedfishServer:
    """Serves ``documents``; what is not there is a 404, and without the login everything a 401.

    Attributes:
        documents: By path; may change while it serves.
        url: Where it listens.
    """

    def __init__(self, documents: Tree, login: str | None, tls: ssl.SSLContext | None) -> None:
        self.documents = documents
        expected = None if login is None else f"Basic {base64.b64encode(login.encode()).decode()}"
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                document = service.documents.get(self.path)
                if expected is not None and self.headers.get("Authorization") != expected:
                    self.answer(401, "{}")
                elif document is None:
                    self.answer(404, "{}")
                else:
                    self.answer(
                        200, document if isinstance(document, str) else json.dumps(document)
                    )

            def answer(self, status: int, text: str) -> None:
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that hangs up, as one that distrusts the certificate does."""

        self.http = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self.http.socket = tls.wrap_socket(self.http.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.http.server_address[1]}"


@contextmanager
def serving(
    documents: Tree, *, login: str | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[RedfishServer]:
    """Run a service."""
    server = RedfishServer(documents, login, tls)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        thread.join()
        server.http.server_close()
