"""CSV as objects: a row under the names of the header, numbers where the reader asks for them."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator

from wattbench.core.run import Json
from wattbench.interchange.results.document import BadDocument
from wattbench.interchange.results.glance import Glance

UNKNOWN = {"", "nan", "null", "none", "n/a", "na", "-"}
"""What a cell without a value holds, in small letters."""


def header_of(glance: Glance) -> list[str]:
    """Names of the first line of a text; none of JSON."""
    if glance.form != "text":
        return []
    try:
        first = next(csv.reader([glance.first.lstrip("\ufeff").partition("\n")[0].rstrip("\r")]))
    except (csv.Error, StopIteration):
        return []
    return [name.strip() for name in first]


def rows_of(glance: Glance, numeric: Collection[str] = ()) -> Iterator[tuple[str, dict[str, Json]]]:
    """Place and cells of each row; cells without a value are None.

    Args:
        glance: A text.
        numeric: Columns that hold numbers.

    Raises:
        BadDocument: If a row has more or fewer cells than the header, or a number is none.
    """
    path = glance.document.path
    names = header_of(glance)
    if len(set(names)) != len(names):
        raise BadDocument(f"{path}, line 1: a column is named twice")
    rows = csv.reader(io.StringIO(glance.document.text(), newline=""))
    try:
        next(rows)
        for cells in rows:
            if not cells:
                continue
            place = f"{path}, line {rows.line_num}"
            if len(cells) != len(names):
                raise BadDocument(f"{place}: {len(cells)} cells under {len(names)} columns")
            pairs = zip(names, cells, strict=True)
            yield place, {name: _cell(place, name, cell, numeric) for name, cell in pairs}
    except csv.Error as error:
        raise BadDocument(f"{path}, line {rows.line_num}: not valid CSV ({error})") from error


def _cell(place: str, name: str, cell: str, numeric: Collection[str]) -> Json:
    text = cell.strip()
    if text.lower() in UNKNOWN:
        return None
    if name not in numeric:
        return text
    try:
        return float(text)
    except ValueError as error:
        raise BadDocument(f"{place}: {name} is {text[:60]!r}, not a number") from error
