"""One URL read again and again over one connection, without an event loop."""

from __future__ import annotations

import http.client
import json
import math
from urllib.parse import quote, urlsplit

from wattbench.core.errors import MeterError

MAX_BYTES = 16 << 20


class PageReader:
    """Reads a page of text, or the result of a PromQL query.

    Args:
        url: Address of the page, or with ``query`` of a Prometheus server.
        query: PromQL, None for a page.
        timeout_s: Longest wait for an answer [s].
    """

    def __init__(self, url: str, query: str | None, timeout_s: float) -> None:
        self._parts = urlsplit(url)
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None
        path = self._parts.path or "/"
        self._target = f"{path}?{self._parts.query}" if self._parts.query else path
        if query is not None:
            self._target = f"{path.rstrip('/')}/api/v1/query?query={quote(query)}"
        self.shown_url = f"{self._parts.scheme}://{self._parts.netloc.rpartition('@')[2]}{path}"

    def text(self) -> str:
        """The body of the answer.

        Raises:
            MeterError: If there is no answer, or not with HTTP 200.
        """
        try:
            try:
                return self._get()
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # A server may close an idle connection; once more on a new one.
                self.close()
                return self._get()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise MeterError(f"{self.shown_url} does not answer: {error}") from error

    def query_result(self) -> list[tuple[dict[str, str], float]]:
        """Labels and value of every series of the result.

        Raises:
            MeterError: If there is no answer, or it is not a result of Prometheus.
        """
        text = self.text()
        try:
            answer = json.loads(text)
            result = answer["data"]["result"]
            found = [({**one["metric"]}, float(one["value"][1])) for one in result]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise MeterError(
                f"{self.shown_url} is not a Prometheus server: {text[:80]!r}"
            ) from error
        return [(labels, value) for labels, value in found if math.isfinite(value)]

    def close(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _get(self) -> str:
        if self._connection is None:
            secure = self._parts.scheme == "https"
            kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
            host = self._parts.hostname or ""
            self._connection = kind(host, self._parts.port, timeout=self._timeout_s)
        self._connection.request("GET", self._target, headers={"Accept": "text/plain, */*"})
        response = self._connection.getresponse()
        body = response.read(MAX_BYTES)
        if response.status != 200:
            self.close()
            raise MeterError(f"{self.shown_url} answers with HTTP {response.status}")
        return body.decode("utf-8", "replace")
