"""What of a result file may be kept: all but the places in which tools repeat keys.

AIPerf, for one, writes its own command line, headers and extra inputs into its results; addresses
with a key in them stand in fields of any name, and failures repeat what the server was sent.
"""

from __future__ import annotations

import dataclasses
import gzip
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from wattbench.core.load import RequestResult
from wattbench.core.redaction import without_credentials
from wattbench.interchange.results.measurement import Measurement

_NAMES = (
    *("cli_command", "command_line", "command", "cmd", "argv"),
    *("headers", "extra", "extra_inputs", "extra_body"),
    *("api_key", "apikey", "api-key", "x-api-key", "authorization", "auth", "password", "secret"),
    *("access_token", "auth_token", "hf_token"),
)
"""Keys of a document whose value is left out, whatever it is."""
_KEY = re.compile(rb'"(' + "|".join(_NAMES).encode() + rb')"\s*:', re.IGNORECASE)
_INFINITY = re.compile(rb"([:\[,]\s*)(-?)Infinity(?=\s*[,}\]])")
_LEFT_OUT = "left out by wattbench"


def without_secrets(content: bytes) -> bytes:
    """The content of a file as it may be kept; the same bytes where nothing is left out."""
    text = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    try:
        kept = _json_without(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        kept = b"".join(_line(line) for line in text.splitlines(keepends=True))
    return content if kept == text else kept


def _line(line: bytes) -> bytes:
    try:
        return _json_without(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # No reader takes half a line of JSON, and what it holds cannot be told.
        return b"\n" if _KEY.search(line) else _text_without(line)


def _json_without(text: bytes) -> bytes:
    """The text of a JSON value, written anew only where something had to go."""
    value = msgspec.json.decode(_INFINITY.sub(rb'\1"\2inf"', text.removeprefix(b"\xef\xbb\xbf")))
    cleaned = _cleaned(value)
    if cleaned == value:
        return text
    return msgspec.json.encode(cleaned) + (b"\n" if text.endswith(b"\n") else b"")


def _text_without(text: bytes) -> bytes:
    return without_credentials(text.decode("utf-8", "surrogateescape")).encode(
        "utf-8", "surrogateescape"
    )


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return without_credentials(value)
    if isinstance(value, Mapping):
        return {
            without_credentials(key): _LEFT_OUT
            if key.lower() in _NAMES and each
            else _cleaned(each)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_cleaned(each) for each in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **_cleaned(_fields(value)))
    return value


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def measurement_without_secrets(measurement: Measurement) -> Measurement:
    """A measurement whose texts, at any depth and of each request, may be stored and shown."""
    plain = _fields(measurement) | {"requests": None, "files": ()}
    cleaned = Measurement(**_cleaned(plain))
    requests = measurement.requests

    def quiet() -> Iterator[RequestResult]:
        for result in requests() if requests is not None else ():
            text = result.error_text
            yield (
                result
                if text is None
                else dataclasses.replace(result, error_text=without_credentials(text))
            )

    return dataclasses.replace(
        cleaned, requests=None if requests is None else quiet, files=measurement.files
    )
