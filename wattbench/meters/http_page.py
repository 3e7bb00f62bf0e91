"""Pages of one server read again and again over one connection, without an event loop."""

from __future__ import annotations

import base64
import http.client
import json
import math
import os
import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import SplitResult, quote, urlsplit

from wattbench.core.errors import MeterError

MAX_BYTES = 16 << 20


def checked_url(url: str) -> SplitResult:
    """The parts of a URL that can be read; its errors show no login and no query.

    Raises:
        ValueError: If it is none of http or https, or holds a login.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("url=… must be like http://HOST:PORT/PATH") from None
    shown = f"{parts.scheme}://{parts.hostname or ''}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"url={shown} must begin with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"url={shown} must hold no login: user=… and password_env=… do")
    return parts


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by any name of its own."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def login_header(user: str, password_env: str) -> dict[str, str]:
    """The header of a login whose password an environment variable holds.

    Raises:
        MeterError: If it does not.
    """
    password = os.environ.get(password_env)
    if not password:
        raise MeterError(
            f"the environment variable {password_env}, for the password of {user}, is not set",
            f"read -rs {password_env} && export {password_env}",
        )
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {login}"}


def refusal(error: HttpStatusError, user: str | None, password_env: str) -> MeterError:
    """What a 401 or 403 means, and what to do about it."""
    who = f"user {user}" if user else "a reader without a login"
    fix = f"Name user=…, and its password in {password_env}: "
    fix += f"read -rs {password_env} && export {password_env}"
    return MeterError(f"{error.url} refuses {who}", fix)


class HttpStatusError(MeterError):
    """An answer with another status than 200.

    Attributes:
        url: The address, without login and query.
        status: The status.
    """

    def __init__(self, url: str, status: int) -> None:
        super().__init__(f"{url} answers with HTTP {status}")
        self.url = url
        self.status = status


class PageReader:
    """Reads a page of text, or the result of a PromQL query.

    Args:
        url: Address of the page, or with ``query`` of a Prometheus server.
        query: PromQL, None for a page.
        timeout_s: Longest wait for an answer [s].
        headers: Sent with every request, such as a login; never shown.
        tls: How an https server proves itself; None: by the system's authorities.
    """

    def __init__(
        self,
        url: str,
        query: str | None,
        timeout_s: float,
        *,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._parts = urlsplit(url)
        self._timeout_s = timeout_s
        self._headers = {"Accept": "text/plain, */*", **(headers or {})}
        self._tls = tls
        self._connection: http.client.HTTPConnection | None = None
        path = self._parts.path or "/"
        self._target = f"{path}?{self._parts.query}" if self._parts.query else path
        if query is not None:
            self._target = f"{path.rstrip('/')}/api/v1/query?query={quote(query)}"
        self._shown_server = f"{self._parts.scheme}://{self._parts.netloc.rpartition('@')[2]}"
        self.shown_url = f"{self._shown_server}{path}"

    def text(self, path: str | None = None) -> str:
        """The body of the answer.

        Args:
            path: Another page of the same server; None: the one that the URL names.

        Raises:
            MeterError: If there is no answer, or not with HTTP 200 (then ``HttpStatusError``).
        """
        shown_url = self.shown_url if path is None else f"{self._shown_server}{path}"
        try:
            try:
                return self._get(path or self._target, shown_url)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # A server may close an idle connection; once more on a new one.
                self.close()
                return self._get(path or self._target, shown_url)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise MeterError(f"{shown_url} does not answer: {error}") from error

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

    def _get(self, target: str, shown_url: str) -> str:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.request("GET", target, headers=self._headers)
        with self._connection.getresponse() as response:
            body = response.read(MAX_BYTES)
        if response.status != 200:
            self.close()
            raise HttpStatusError(shown_url, response.status)
        return body.decode("utf-8", "replace")

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(
                host, port, timeout=self._timeout_s, context=self._tls
            )
        return http.client.HTTPConnection(host, port, timeout=self._timeout_s)
