"""What a backend and the child process with its engine tell each other over a stream."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_HEADER = struct.Struct("!Q")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a prompt: a text, or as many invented tokens."""

    text: str | None
    tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class Submit:
    """To the child: answer this."""

    ident: int
    parts: tuple[Part, ...]
    max_output_tokens: int
    ignore_eos: bool


@dataclass(frozen=True, slots=True)
class Cancel:
    """To the child: nobody waits for this answer any more."""

    ident: int


@dataclass(frozen=True, slots=True)
class Close:
    """To the child: leave."""


@dataclass(frozen=True, slots=True)
class Ready:
    """From the child: the engine is loaded. None stands for what the engine does not tell."""

    device_name: str
    vocabulary: int
    arithmetic: str | None
    kv_precision: str | None
    threads: int | None
    parameters: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """From the child: the engine cannot be loaded; ``no_device`` if for want of the device."""

    reason: str
    no_device: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """What a step adds to one answer; its text is None unless texts are streamed."""

    tokens: int
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """End of one answer; ``error`` says why it failed, None for a success."""

    input_tokens: int
    output_tokens: int
    text: str = ""
    finish_reason: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """From the child, once per step of the engine: what is new and what ended, by request."""

    pieces: Mapping[int, Piece]
    ended: Mapping[int, Ended]


class Inbox:
    """Puts messages together from the bytes of a stream."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """Messages that are complete with these bytes."""
        self._bytes += data
        messages = []
        while len(self._bytes) >= _HEADER.size:
            end = _HEADER.size + _HEADER.unpack_from(self._bytes)[0]
            if len(self._bytes) < end:
                break
            # Both ends of the stream are this package, on one machine.
            messages.append(pickle.loads(self._bytes[_HEADER.size : end]))  # noqa: S301
            del self._bytes[:end]
        return messages


def packed(message: object) -> bytes:
    """A message as it goes over the stream."""
    body = pickle.dumps(message)
    return _HEADER.pack(len(body)) + body
