"""Backend ``openai``: any server that speaks the OpenAI API, streaming, over HTTP.

Errors of one request; a result carries the name of the class:

    BackendError
    ├── ConnectionFailed   no connection, or lost before the answer began
    ├── RequestTimeout     no byte for ``timeout_s``
    ├── HttpStatusError    the server refused with an HTTP status
    ├── StreamError        the answer broke off, is malformed, or carries an error
    └── WrongUsage         the server counts tokens that the answer cannot have

The key is read from the environment for each request and kept nowhere; what a server says is
cleared of it before it gets into an error.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
from collections.abc import AsyncGenerator, Iterator
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from wattbench.backends.client_processes import ClientProcesses
from wattbench.backends.http_client import BrokenAnswer, Connection, HttpClient, NoConnection
from wattbench.backends.openai_lengths import Calibration, PromptLengths, asker
from wattbench.backends.openai_options import OpenAIOptions
from wattbench.backends.openai_url import port_of, without_query
from wattbench.backends.openai_wire import (
    PATHS,
    Answer,
    StreamError,
    WrongUsage,
    exact_length,
    quoted,
    request_body,
)
from wattbench.backends.server_metrics import StateReader, metrics_page
from wattbench.backends.sse import SseError, SseParser
from wattbench.core.errors import BackendError
from wattbench.core.run import EngineInfo, Mode, ServerState
from wattbench.hardware import is_this_machine, listening_process_ids
from wattbench.plugins import PluginContext

if TYPE_CHECKING:
    from wattbench.core.load import InferenceRequest, TokenChunk

__all__ = [
    "ConnectionFailed",
    "HttpStatusError",
    "OpenAIBackend",
    "OpenAIOptions",
    "RequestTimeout",
    "StreamError",
    "WrongUsage",
]

_CONNECT_S = 30.0
_UNKNOWN_FIELD = (400, 422)  # how servers refuse a field; 422 is that of FastAPI
_PATH_CHARACTERS = "/%:@!$&'()*+,;=~?"  # what may stand unquoted; % keeps what is quoted
_DRAIN_S = 1.0
_BODY_BYTES = 16 * 2**20
_ERROR_BODY_BYTES = 64 * 2**10


class ConnectionFailed(BackendError):
    """There is no connection to the server, or it broke before the answer began."""


class RequestTimeout(BackendError):
    """The server sent nothing for longer than ``timeout_s``."""


class HttpStatusError(BackendError):
    """The server refused a request with an HTTP status."""


class OpenAIBackend:
    """Streams answers from a server that speaks the OpenAI API.

    Attributes:
        ignores_eos: Whether the server takes ``ignore_eos`` and ``min_tokens``; becomes False
            once it has refused a request with them and served the same without.
    """

    Options = OpenAIOptions

    def __init__(self, options: OpenAIOptions, context: PluginContext) -> None:
        self.ignores_eos = True
        self._options = options
        self._model = options.model or ""
        self._client: HttpClient | None = None
        self._processes: ClientProcesses | None = None
        self._lengths = PromptLengths()
        self._bodies: dict[int, bytes] = {}
        self._states = StateReader()

    @staticmethod
    def availability() -> str | None:
        """Why it cannot work here: never, any machine can send requests."""
        return None

    def address(self) -> tuple[str, int]:
        """Host and port of the server."""
        return urlsplit(self._options.url).hostname or "", port_of(self._options.url)

    async def open(self) -> EngineInfo:
        """Ask the server which models it serves, and choose one.

        Raises:
            ConnectionFailed: If nothing answers at the URL.
            RequestTimeout: If the answer takes too long.
            HttpStatusError: If the server wants another key or is out of order.
            BackendError: If it does not speak the OpenAI API or does not serve the model.
        """
        key = self._key()
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise BackendError(f"the key in {self._options.key_env} has characters no key can have")
        self._client = self._new_client()
        with self._translated():
            answer = await self._client.send("GET", self._target("models"), self._headers())
            try:
                body = await answer.read_all(_BODY_BYTES)
            finally:
                answer.release()
        served = self._served_models(answer, body)
        wanted = self._options.model
        if wanted is not None and wanted not in served:
            names = ", ".join(served[:20]) + (f" and {len(served) - 20} more" * (len(served) > 20))
            raise self._error(BackendError, f"{self._url} does not serve {wanted!r} but {names}")
        self._model = wanted or served[0]
        here = is_this_machine(self.address()[0])
        self._lengths = await self._calibrated(self._client)
        self.ignores_eos = self._lengths.ignores_eos
        if self._options.client_processes > 1:
            adopt = partial(_adopted, self._options, self._model, self._lengths)
            self._processes = ClientProcesses(adopt, self._options.client_processes)
            await self._processes.open()
        server = self._redacted(answer.headers.get("server", ""))
        return EngineInfo(
            model=self._model,
            engine=f"openai ({server})" if server else "openai",
            tokens_source="usage",
            mode=Mode(),
            on_client_host=here,
            process_ids=listening_process_ids(self.address()[1]) if here else (),
            detail={"url": self._url, "api": self._options.api} | self._lengths.detail(),
        )

    def adopt(self, model: str, lengths: PromptLengths) -> None:
        """Take over what another one found out when it opened."""
        self._model, self._lengths = model, lengths
        self.ignores_eos = lengths.ignores_eos
        self._client = self._new_client()

    @property
    def client_process_ids(self) -> tuple[int, ...]:
        """Processes beside this one that send."""
        return self._processes.pids if self._processes is not None else ()

    def prepare(self, request: InferenceRequest) -> None:
        """Make the body of a request: a prompt of 8,000 words takes milliseconds."""
        self._bodies[request.index] = self._body(request, exact=self._asks_exact(request))

    def hand_over(self, request: InferenceRequest, body: bytes) -> None:
        """Take a body that another process has made."""
        self._bodies[request.index] = body

    async def generate(self, request: InferenceRequest) -> AsyncGenerator[TokenChunk, None]:
        """Answer one request.

        Yields:
            A chunk of unknown length for each event with text, then one of 0 tokens with the
            counts of the server.

        Raises:
            ConnectionFailed: If the server cannot be reached.
            RequestTimeout: If it sends nothing for ``timeout_s``.
            HttpStatusError: If it refuses the request.
            StreamError: If the answer breaks off, is malformed or carries an error.
            WrongUsage: If the count of its tokens cannot be true.
        """
        if self._processes is not None:
            body = self._prepared(request)
            chunks, error = await self._processes.answer(request, body)
            for each in chunks:
                yield each
            if error is not None:
                raise error
            return
        answer = Answer(redacted=self._redacted, max_output_tokens=request.max_output_tokens)
        parser = SseParser()
        with self._translated():
            response = await self._send(request)
            try:
                while not answer.done and (data := await response.read()):
                    for event in parser.feed(data):
                        chunk = answer.take(event, response.arrived_s)
                        if chunk is not None:
                            yield chunk
                yield answer.last(_content_type(response), response.arrived_s)
                await response.drain(_DRAIN_S)
            finally:
                # Also when the caller gives up half-way: the server must stop working on it.
                response.release()

    async def state(self) -> ServerState | None:
        """What the server's own ``/metrics`` tell, None if there are none."""
        client = self._client
        page = await metrics_page(client, self._target("models")) if client else None
        return self._states.take(page) if page else None

    async def close(self) -> None:
        """Close all connections."""
        processes, self._processes = self._processes, None
        if processes is not None:
            await processes.close()
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _calibrated(self, client: HttpClient) -> PromptLengths:
        api = self._options.api
        ask = asker(client, self._target(PATHS[api]), self._headers())
        return await Calibration(ask, self._model, api).lengths(self._options.exact_lengths)

    def _new_client(self) -> HttpClient:
        wait_s = self._options.timeout_s
        return HttpClient(
            urlsplit(self._options.url),
            self._tls(),
            connect_s=min(wait_s, _CONNECT_S),
            silence_s=wait_s,
        )

    def _tls(self) -> ssl.SSLContext | None:
        if urlsplit(self._options.url).scheme != "https":
            return None
        context = ssl.create_default_context()
        if not self._options.verify_tls:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    @property
    def _url(self) -> str:
        return without_query(self._options.url)

    def _target(self, path: str) -> str:
        """Path and query of an endpoint."""
        parts = urlsplit(self._options.url)
        target = f"{quote(parts.path.rstrip('/'), safe=_PATH_CHARACTERS)}/{path}"
        return f"{target}?{quote(parts.query, safe=_PATH_CHARACTERS)}" if parts.query else target

    def _key(self) -> str | None:
        return os.environ.get(self._options.key_env, "").strip() or None

    def _headers(self) -> dict[str, str]:
        key = self._key()
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _redacted(self, text: str) -> str:
        """The text without the key, and without the URL's query, which may hold another one."""
        for secret in (self._key(), urlsplit(self._options.url).query):
            if secret:
                text = text.replace(secret, "[removed]")
        return text

    def _error(self, kind: type[BackendError], text: str) -> BackendError:
        return kind(self._redacted(text))

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """The one place where errors of the network become errors of wattbench."""
        try:
            yield
        except NoConnection as error:
            raise self._error(RequestTimeout, f"{self._url} accepts no connection") from error
        except TimeoutError as error:
            text = f"no byte from {self._url} for {self._options.timeout_s:g} s (timeout_s)"
            raise self._error(RequestTimeout, text) from error
        except (BrokenAnswer, SseError) as error:
            text = f"stream ended early: {self._url}: {error}"
            raise self._error(StreamError, text) from error
        except OSError as error:
            text = f"cannot reach {self._url}: {error}. " + _way_out(error)
            raise self._error(ConnectionFailed, text) from error

    def _served_models(self, response: Connection, body: str) -> list[str]:
        """Names of the models in the answer to ``GET /models``."""
        status = response.status
        if status in (401, 403):
            name = self._options.key_env
            why = "does not accept the key in" if self._key() else "wants a key; none is set in"
            text = f"{self._url} {why} the environment variable {name} (HTTP {status})"
            raise self._error(HttpStatusError, text)
        if status >= 400 and status not in (404, 405):
            raise self._status_error(response, body)
        try:
            content = json.loads(body)
            found = [item["id"] for item in content["data"]] if status < 300 else []
        except (ValueError, RecursionError, TypeError, LookupError):
            found = []
        if not found or not all(isinstance(name, str) for name in found):
            text = (
                f"{self._url} is not an OpenAI-compatible server: GET /models gave HTTP {status}, "
                f"{_content_type(response)}, {quoted(self._redacted(body), 80)}. "
                "Does the URL end in /v1?"
            )
            raise self._error(BackendError, text)
        return found

    async def _send(self, request: InferenceRequest) -> Connection:
        """Post a request; the answer has a good status and is the caller's to release."""
        asks_exact = self._asks_exact(request)
        response = await self._post(self._prepared(request))
        if response.status in _UNKNOWN_FIELD and asks_exact:
            response.release()
            response = await self._post(self._body(request, exact=False))
            # Only a success shows that these two fields were the reason of the refusal.
            if response.status < 300:
                self.ignores_eos = False
        if response.status < 300:
            return response
        text = ""
        try:
            # The status tells more than the breaking off of its body.
            with contextlib.suppress(TimeoutError, BrokenAnswer):
                text = await response.read_all(_ERROR_BODY_BYTES)
        finally:
            response.release()
        raise self._status_error(response, text)

    def _asks_exact(self, request: InferenceRequest) -> bool:
        return request.ignore_eos and self.ignores_eos

    def _prepared(self, request: InferenceRequest) -> bytes:
        made = self._bodies.pop(request.index, None)
        return made or self._body(request, exact=self._asks_exact(request))

    def _body(self, request: InferenceRequest, *, exact: bool) -> bytes:
        body = request_body(request, self._model, self._options.api, self._lengths)
        return json.dumps(body | exact_length(request) if exact else body).encode()

    async def _post(self, body: bytes) -> Connection:
        if self._client is None:
            raise BackendError("the backend openai is asked for an answer before it is open")
        target = self._target(PATHS[self._options.api])
        return await self._client.send("POST", target, self._headers(), body)

    def _status_error(self, response: Connection, body: str) -> BackendError:
        text = f"{self._url}: HTTP {response.status}: {quoted(self._redacted(body), 200)}"
        if response.status < 400:
            text += f"; it redirects to {response.headers.get('location')!r}: give that URL"
        return self._error(HttpStatusError, text)


def _adopted(options: OpenAIOptions, model: str, lengths: PromptLengths) -> OpenAIBackend:
    """A backend that is open without having asked: the parent process has."""
    backend = OpenAIBackend(options, PluginContext(hardware=None, seed=0))
    backend.adopt(model, lengths)
    return backend


def _content_type(response: Connection) -> str:
    return response.headers.get("content-type", "no content type").partition(";")[0]


def _way_out(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "A certificate that nobody has signed is accepted by verify_tls=false."
    return "Is the server up? Does the URL end in /v1?"
