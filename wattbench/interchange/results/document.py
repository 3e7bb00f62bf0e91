"""Files of other people: read as what they say they are, and refused in one sentence if they lie.

Nothing in a file may hurt: neither depth, size, a number beyond any float, an encoding, nor an
archive that unpacks to more than a disk.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from wattbench.core.errors import UsageError
from wattbench.core.files import why_irregular
from wattbench.interchange.results.secrets import without_secrets

MAX_DOCUMENT_BYTES = 512 * 1024**2
"""A single JSON document that is larger is refused; a list of lines may be of any length [B]."""
MAX_LINE_BYTES = 64 * 1024**2
MAX_RATIO = 200
"""Unpacked over packed size from which an archive is a bomb: texts reach a tenth of it."""
SMALL_BYTES = 16 * 1024**2
"""Below this no archive is suspected [B]."""
HEAD_BYTES = 256 * 1024
GZIP_MAGIC = b"\x1f\x8b"
_INFINITY = re.compile(rb"([:\[,]\s*)Infinity(?=\s*[,}\]])")
WATCH_BYTES = 1024**2
Watch = Callable[[Path, int], None]
"""Told a file and how many bytes of its text were read, each time that it is read anew."""


def unwatched(_path: Path, _read_bytes: int) -> None:
    """Nobody looks."""


class BadDocument(UsageError):
    """A file is not what it says, or cannot be read: names file, place and reason."""


class BadMapping(BadDocument):
    """A mapping names what a file does not have: one of the two is not what the user meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file that may hold results, plain or packed by gzip.

    Attributes:
        path: Where it lies.
        sha256: Hash of its bytes, packed as they are.
        size_bytes: Their number.
        watch: Told how far the reading is.
    """

    path: Path
    sha256: str
    size_bytes: int
    watch: Watch = field(default=unwatched, compare=False)

    def kept(self) -> bytes:
        """What of its bytes may be kept: all but keys that a tool repeats."""
        return without_secrets(self.path.read_bytes())

    def head(self) -> bytes:
        """The first part of the text, for a look at what it is."""
        with self._open() as file:
            return _guarded(self, lambda: file.read(HEAD_BYTES))

    def json(self) -> Any:
        """The whole file as one JSON value.

        Raises:
            BadDocument: If it is none.
        """
        with self._open() as file:
            data = _guarded(self, lambda: file.read(MAX_DOCUMENT_BYTES + 1))
        if len(data) > MAX_DOCUMENT_BYTES:
            raise BadDocument(f"{self.path}: a JSON document of more than 512 MB is not read")
        return self._decoded(data, "")

    def json_lines(self) -> Iterator[tuple[int, Any]]:
        """Number, from 1, and value of each line that is not empty; one line in memory at a time.

        Raises:
            BadDocument: If a line is no JSON.
        """
        number = 0
        with self._open() as file:
            while line := _guarded(self, lambda: file.readline(MAX_LINE_BYTES + 1)):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise BadDocument(f"{self.path}, line {number}: longer than 64 MB")
                if line.strip():
                    yield number, self._decoded(line, f", line {number}")

    def text(self) -> str:
        """The whole file as text.

        Raises:
            BadDocument: If it is not in UTF-8.
        """
        with self._open() as file:
            data = _guarded(self, lambda: file.read(MAX_DOCUMENT_BYTES + 1))
        if len(data) > MAX_DOCUMENT_BYTES:
            raise BadDocument(f"{self.path}: a text of more than 512 MB is not read")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadDocument(f"{self.path}: not in UTF-8, at byte {error.start}") from error

    def _open(self) -> _Source:
        try:
            with self.path.open("rb") as raw:
                packed = raw.read(2) == GZIP_MAGIC
            # The source closes it.
            opened = gzip.open(self.path) if packed else self.path.open("rb")  # noqa: SIM115
        except OSError as error:
            raise BadDocument(f"{self.path}: cannot be read ({error.strerror})") from error
        return _Source(self, opened, packed=packed)

    def _decoded(self, data: bytes, place: str) -> Any:
        try:
            return _json_value(data.removeprefix(b"\xef\xbb\xbf"))
        except msgspec.DecodeError as error:
            raise BadDocument(
                f"{self.path}{place}: not valid JSON ({error}); it may be cut off, or hold NaN, "
                f"Infinity or a number beyond any float, which JSON has not"
            ) from error
        except RecursionError as error:
            raise BadDocument(f"{self.path}{place}: nested too deep to be a result") from error
        except UnicodeDecodeError as error:
            raise BadDocument(f"{self.path}{place}: not in UTF-8") from error


def _json_value(data: bytes) -> Any:
    """The value; a bare ``Infinity``, which Python's ``json`` writes for no limit, is a text."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        if b"Infinity" not in data:
            raise
        return msgspec.json.decode(_INFINITY.sub(rb'\1"inf"', data))


class _Source(io.BufferedIOBase):
    """An open file that counts what it gives, and stops an archive that gives too much."""

    def __init__(self, document: Document, file: Any, *, packed: bool) -> None:
        self._document, self._file, self._packed = document, file, packed
        self._given = self._told = 0

    def read(self, size: int | None = -1, /) -> bytes:
        return self._counted(self._file.read(size))

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._counted(self._file.readline(size))

    def close(self) -> None:
        self._file.close()
        super().close()

    def _counted(self, data: bytes) -> bytes:
        self._given += len(data)
        limit = max(SMALL_BYTES, MAX_RATIO * self._document.size_bytes)
        if self._packed and self._given > limit:
            raise BadDocument(
                f"{self._document.path}: unpacks to more than {MAX_RATIO} times its size; no "
                f"result does, so it is not read further"
            )
        if self._given - self._told > WATCH_BYTES:
            self._told = self._given
            self._document.watch(self._document.path, self._given)
        return data


def _guarded(document: Document, read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except (OSError, EOFError, zlib.error) as error:
        raise BadDocument(f"{document.path}: cannot be read or unpacked ({error})") from error


def open_document(path: Path, watch: Watch = unwatched) -> Document:
    """A file with its hash.

    Args:
        path: Where it lies.
        watch: Told how far the reading is.

    Raises:
        BadDocument: If it cannot be read.
    """
    why = why_irregular(path)
    if why is not None:
        raise BadDocument(f"{path}: {why}")
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
                watch(path, size)
    except OSError as error:
        raise BadDocument(f"{path}: cannot be read ({error.strerror})") from error
    return Document(path=path, sha256=digest.hexdigest(), size_bytes=size, watch=watch)
