"""Server-sent events: bytes in as the network cuts them, events out as soon as they are whole.

Source: WHATWG HTML standard, section 9.2.6 "Interpreting an event stream".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

MAX_EVENT_BYTES = 4 * 2**20
"""Longest event accepted unless told otherwise [bytes]; an answer's chunk has a few hundred."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class SseError(ValueError):
    """A stream of events that cannot be read on."""


class Event(NamedTuple):
    """One event.

    Attributes:
        data: Its data lines, joined by line feeds.
        name: Its ``event`` field, ``message`` if it has none.
    """

    data: str
    name: str = "message"

    @property
    def done(self) -> bool:
        """Whether this is the ``[DONE]`` by which OpenAI-compatible servers end a stream."""
        return self.data.strip() == "[DONE]"


class SseParser:
    r"""Turns bytes into events; how the bytes are cut makes no difference.

    Lines end in CR LF, LF or CR. Comments and the fields ``id`` and ``retry`` are dropped, and so
    is an event that the end of the stream cuts off.

    Args:
        max_event_bytes: Longest event accepted [bytes], so that a server that never ends a line
            cannot fill the memory.

    Example:
        >>> parser = SseParser()
        >>> list(parser.feed(b"data: hel")), list(parser.feed(b"lo\n\n"))
        ([], [Event(data='hello', name='message')])
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._line = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._name = b""
        self._after_cr = False
        self._at_start = True

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Take the next bytes; the iterator must be used up before the next call.

        Yields:
            Each event that these bytes complete.

        Raises:
            SseError: If an event is longer than the bound; the parser is of no more use then.
        """
        if not self._between_events:
            yield from self._feed_lines(chunk)
            return
        # Nearly all that a server sends is one data line and an empty one, whole: by line, each
        # of them would cost ten times as much.
        *wholes, rest = chunk.split(b"\n\n")
        for whole in wholes:
            if whole.startswith(b"data: ") and b"\n" not in whole and b"\r" not in whole:
                if len(whole) > self._max_event_bytes:
                    raise self._too_long()
                yield Event(_text(whole[6:]))
            else:
                yield from self._feed_lines(whole + b"\n\n")
        yield from self._feed_lines(rest)

    @property
    def _between_events(self) -> bool:
        return not (self._line or self._data or self._name or self._after_cr or self._at_start)

    def _feed_lines(self, chunk: bytes) -> Iterator[Event]:
        if not chunk:
            return
        if self._after_cr and chunk.startswith(b"\n"):  # the second half of a CR LF cut in two
            chunk = chunk[1:]
            self._after_cr = False
        # bytes.splitlines, unlike that of str, splits at CR LF, LF and CR and nothing else. None
        # of them occurs within a UTF-8 sequence, so a whole line is always whole text.
        for piece in chunk.splitlines(keepends=True):
            content = piece.rstrip(b"\r\n")
            self._line += content
            self._check_size()
            self._after_cr = piece.endswith(b"\r")
            if len(content) < len(piece):
                event = self._end_line()
                if event is not None:
                    yield event

    def _check_size(self) -> None:
        if self._data_bytes + len(self._line) > self._max_event_bytes:
            raise self._too_long()

    def _too_long(self) -> SseError:
        return SseError(f"an event is longer than {self._max_event_bytes} bytes")

    def _end_line(self) -> Event | None:
        line = bytes(self._line)
        self._line.clear()
        if self._at_start:
            line = line.removeprefix(_BYTE_ORDER_MARK)
            self._at_start = False
        if not line:
            return self._end_event()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._data_bytes += len(value) + 1
        elif field == b"event":
            self._name = value
        return None

    def _end_event(self) -> Event | None:
        data, name = self._data, self._name
        self._data, self._data_bytes, self._name = [], 0, b""
        if not data:
            return None
        return Event(_text(b"\n".join(data)), _text(name) or "message")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
