"""Data that lies beside a workload file: found, read once, and known by its digest."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, model_validator

from wattbench.documents import Document

MAX_BYTES = 10**9


def folder_of(info: ValidationInfo) -> Path:
    """The folder of the file that is being read; the current one for what is no file."""
    context: dict[str, Any] = info.context or {}
    return Path(context.get("folder", ""))


class DataFile(Document):
    """A file that a workload names.

    Attributes:
        file: Path, relative to the folder of the workload file.
        sha256: Digest of the content; what is written must be right, what is not is filled in.
    """

    file: Annotated[str, Field(min_length=1, max_length=4096)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _read(self, info: ValidationInfo) -> DataFile:
        raw = _content(folder_of(info) / self.file, self.file)
        digest = hashlib.sha256(raw).hexdigest()
        if self.sha256 is not None and self.sha256 != digest:
            raise ValueError(f"{self.file} is another file: its sha256 is {digest}")
        # Frozen for everybody else; the digest says what the stored workload meant.
        object.__setattr__(self, "sha256", digest)
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.file} is no UTF-8 text: byte {error.start}") from error
        self._take(text)
        return self

    def _take(self, text: str) -> None:
        """Make something of the content; ValueError, with the line, if that is not possible."""


def _content(path: Path, name: str) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise ValueError(f"{name} is no file")
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{name} has more than {MAX_BYTES} bytes; take a part of it")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}") from error
