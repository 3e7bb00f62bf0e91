"""What of a result file may be kept: all but the places in which tools repeat keys.

AIPerf, for one, writes its own command line, headers and extra inputs into its results.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from typing import Any

import msgspec

_NAMES = (
    *("cli_command", "command", "cmd", "headers", "extra", "extra_inputs", "extra_body"),
    *("api_key", "apikey", "authorization", "auth", "password", "secret", "access_token"),
)
"""Keys of a document whose value is left out, whatever it is."""
_KEY = re.compile(rb'"(' + "|".join(_NAMES).encode() + rb')"\s*:', re.IGNORECASE)
_LEFT_OUT = "left out by wattbench"


def without_secrets(content: bytes) -> bytes:
    """The content of a file as it may be kept; the same bytes where nothing is left out."""
    text = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    if not _KEY.search(text):
        return content
    try:
        return _encoded(msgspec.json.decode(text))
    except msgspec.DecodeError:
        lines = (_line(line) for line in text.splitlines())
        return b"\n".join(lines) + b"\n"


def _line(line: bytes) -> bytes:
    if not _KEY.search(line):
        return line
    try:
        return _encoded(msgspec.json.decode(line))
    except msgspec.DecodeError:
        return b""  # no reader takes half a line, and what it holds cannot be told


def _encoded(value: Any) -> bytes:
    return msgspec.json.encode(_cleaned(value))


def _cleaned(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key: _LEFT_OUT if key.lower() in _NAMES and each else _cleaned(each)
            for key, each in value.items()
        }
    return [_cleaned(each) for each in value] if isinstance(value, list) else value
