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


def header_of(glance: Glance, delimiter: str = ",") -> list[str]:
    """Names of the first line of a text; none of JSON."""
    if glance.form != "text":
        return []
    try:
        line = glance.first.lstrip("\ufeff").partition("\n")[0].rstrip("\r")
        first = next(csv.reader([line], delimiter=delimiter))
    except (csv.Error, StopIteration):
        return []
    return [name.strip() for name in first]


def rows_of(
    glance: Glance,
    numeric: Collection[str] = (),
    delimiter: str = ",",
    *,
    unknown: Collection[str] = UNKNOWN,
) -> Iterator[tuple[str, dict[str, Json]]]:
    """Place and cells of each row; cells without a value are None.

    Args:
        glance: A text.
        numeric: Columns that hold numbers.
        delimiter: What stands between cells.
        unknown: What a cell of numbers holds that has none.

    Raises:
        BadDocument: If a row has more or fewer cells than the header, or a number is none.
    """
    path = glance.document.path
    names = header_of(glance, delimiter)
    if len(set(names)) != len(names):
        raise BadDocument(f"{path}, line 1: a column is named twice")
    rows = csv.reader(io.StringIO(glance.document.text(), newline=""), delimiter=delimiter)
    try:
        next(rows)
        for cells in rows:
            if not cells:
                continue
            place = f"{path}, line {rows.line_num}"
            if len(cells) != len(names):
                raise BadDocument(f"{place}: {len(cells)} cells under {len(names)} columns")
            pairs = zip(names, cells, strict=True)
            yield place, {name: _cell(place, name, cell, numeric, unknown) for name, cell in pairs}
    except csv.Error as error:
        raise BadDocument(f"{path}, line {rows.line_num}: not valid CSV ({error})") from error


def _cell(
    place: str, name: str, cell: str, numeric: Collection[str], unknown: Collection[str]
) -> Json:
    text = cell.strip()
    if text.lower() in (unknown if name in numeric else UNKNOWN):
        return None
    if name not in numeric:
        return text
    try:
        return float(text)
    except ValueError as error:
        raise BadDocument(f"{place}: {name} is {text[:60]!r}, not a number") from error
