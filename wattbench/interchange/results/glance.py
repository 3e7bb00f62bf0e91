"""A first look at a file: JSON, lines of JSON, or text; enough to tell whose it is."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any, Literal

from wattbench.interchange.results.document import BadDocument, Document

BESIDE = "beside"
"""Layout of a file that a tool writes beside its results: known, and nothing to import."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What a file looks like.

    Attributes:
        document: The file.
        form: One JSON value, a JSON value per line, or text.
        first: The value; of lines the first one; of text the first part of it.
    """

    document: Document
    form: Literal["json", "lines", "text"]
    first: Any

    @property
    def keys(self) -> Set[str]:
        """Keys of the first object, none if it is no object."""
        return self.first.keys() if isinstance(self.first, dict) else set()

    def objects(self) -> Iterator[tuple[str, Any]]:
        """Place and value of the only object, of each object of a list, or of each line."""
        path = self.document.path
        if self.form == "lines":
            for number, value in self.document.json_lines():
                yield f"{path}, line {number}", value
        elif isinstance(self.first, list):
            for index, value in enumerate(self.first):
                yield f"{path}, item {index}", value
        else:
            yield str(path), self.first


def glance_at(document: Document) -> Glance:
    """Look at a file.

    Raises:
        BadDocument: If it is empty, or begins as JSON and is none.
    """
    head = document.head().removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head:
        raise BadDocument(f"{document.path}: empty")
    if head[:1] not in (b"{", b"["):
        return Glance(document=document, form="text", first=_text(document, head))
    line, _, rest = head.partition(b"\n")
    if rest.strip() and line.rstrip().endswith((b"}", b"]")):
        try:
            _, first = next(document.json_lines())
            return Glance(document=document, form="lines", first=first)
        except BadDocument:
            pass  # a document that is laid out over lines
    return Glance(document=document, form="json", first=document.json())


def _text(document: Document, head: bytes) -> str:
    try:
        return head[: head.rfind(b"\n") + 1 or None].decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadDocument(
            f"{document.path}: neither JSON nor text in UTF-8 (byte {error.start})"
        ) from error
