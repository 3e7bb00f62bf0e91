"""Files of any tool, CSV or JSON, read by a mapping of the user's own; ``mapping`` has its form."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wattbench.core.errors import did_you_mean
from wattbench.core.run import NOT_A_NUMBER, Json
from wattbench.documents import load_document
from wattbench.interchange.results.document import (
    BadDocument,
    BadMapping,
    Document,
    open_document,
)
from wattbench.interchange.results.fields import Fields
from wattbench.interchange.results.glance import Glance, glance_at
from wattbench.interchange.results.mapping import FromField, ResultMap
from wattbench.interchange.results.measurement import Measurement
from wattbench.interchange.results.table import UNKNOWN, rows_of

Row = tuple[str, Mapping[str, Any]]


def read_mapped(
    paths: Sequence[Path], map_path: Path
) -> Iterator[tuple[tuple[Document, ...], str, list[Measurement] | BadDocument]]:
    """What files say by a mapping, which is kept beside each; a bad file costs only itself.

    Args:
        paths: Files; the mapping itself among them is left out.
        map_path: The mapping.

    Raises:
        DocumentError: If the mapping cannot be read.
    """
    mapping = load_document(map_path, ResultMap)
    map_document = open_document(map_path)
    for path in paths:
        if path.resolve() == map_path.resolve():
            continue
        try:
            document = open_document(path)
            found = _measurements(glance_at(document), mapping, map_path)
        except BadDocument as error:
            yield (), mapping.tool, error
            continue
        yield (document, map_document), mapping.tool, found


def _measurements(glance: Glance, mapping: ResultMap, map_path: Path) -> list[Measurement]:
    rows = list(_rows(glance, mapping, map_path))
    if not rows:
        raise BadDocument(f"{glance.document.path}: no row; is rows right in {map_path}?")
    for key, name in _asked(mapping):
        if any(_look_up(row, name) is not _ABSENT for _, row in rows):
            continue
        known = [str(name) for name in rows[0][1]]
        raise BadMapping(
            f"{glance.document.path}: there is no {name!r}{did_you_mean(name, known)}, which "
            f"{key} of {map_path} names; there are {', '.join(known[:20])}"
        )
    return [_measurement(place, row, mapping) for place, row in rows]


def _rows(glance: Glance, mapping: ResultMap, map_path: Path) -> Iterator[Row]:
    if glance.form == "text":
        numeric = {figure.field for figure in mapping.figures}
        numeric |= {mapping.window.start, mapping.window.end} if mapping.window else set()
        numeric |= {mapping.devices.field} if isinstance(mapping.devices, FromField) else set()
        yield from rows_of(glance, numeric, mapping.delimiter, unknown=UNKNOWN - {"nan"})
        return
    for place, value in glance.objects():
        found = value if mapping.rows is None else _look_up(value, mapping.rows)
        if found is _ABSENT:
            raise BadMapping(
                f"{place}: there is no {mapping.rows!r}, which rows of {map_path} names"
            )
        for index, row in enumerate(found if isinstance(found, list) else [found]):
            if not isinstance(row, dict):
                what = type(row).__name__
                raise BadDocument(f"{place}: row {index} is a {what}, not an object; see rows")
            yield (f"{place}, {mapping.rows} {index}" if mapping.rows else place), row


_ABSENT = object()


def _look_up(value: Any, name: str) -> Any:
    """The value of a key, or of a path of keys and indices with dots."""
    if isinstance(value, Mapping) and name in value:
        return value[name]
    for part in name.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return _ABSENT
    return value


def _asked(mapping: ResultMap) -> Iterator[tuple[str, str]]:
    """Key of the mapping and name of each field that it asks for."""
    for index, figure in enumerate(mapping.figures):
        yield f"figures[{index}].field", figure.field
    for key in ("tool_version", "model", "engine", "hardware", "devices"):
        source = getattr(mapping, key)
        if isinstance(source, FromField):
            yield f"{key}.field", source.field
    for key, name in mapping.operating_point.items():
        yield f"operating_point.{key}", name
    if mapping.window is not None:
        yield "window.start", mapping.window.start
        yield "window.end", mapping.window.end


def _measurement(place: str, row: Mapping[str, Any], mapping: ResultMap) -> Measurement:
    asked = {name: _look_up(row, name) for _, name in _asked(mapping)}
    told = {name: value for name, value in asked.items() if value is not _ABSENT}
    fields = Fields(place, {**row, **told})
    for name in asked:
        fields.raw(name.split(".")[0])
    devices = _devices(fields, mapping)
    _take_figures(fields, mapping, devices)
    point: dict[str, Json] = {}
    for key, name in mapping.operating_point.items():
        value = _number_or_text(fields.raw(name))
        if value is not None:
            fields.note("taken", name)
            point[key] = value
    window_s = _window_s(fields, mapping)
    return Measurement(
        tool=mapping.tool,
        layout="mapped",
        tool_version=_text(fields, mapping.tool_version),
        model=_text(fields, mapping.model),
        engine=_text(fields, mapping.engine),
        hardware=_text(fields, mapping.hardware),
        device_count=devices,
        operating_point=point,
        workload={"name": mapping.tool},
        clock="unix" if window_s else None,
        window_s=window_s,
        reported=fields.reported,
        boundary=mapping.boundary,
        energy_method=mapping.energy_method,
        notes=fields.notes(),
    )


def _number(fields: Fields, name: str, key: str) -> float | None:
    """A number; None if absent, or ``nan`` or ``inf``, which costs this field and no other."""
    value = fields.raw(name)
    # A bare Infinity of JSON has become a text.
    if value in ("inf", "-inf") or (isinstance(value, float) and not math.isfinite(value)):
        fields.note("refused", name, f"{NOT_A_NUMBER}: {key} is {value}")
        return None
    return fields.number(name)


def _take_figures(fields: Fields, mapping: ResultMap, devices: int | None) -> None:
    for figure in mapping.figures:
        if _number(fields, figure.field, figure.metric) is None:
            continue
        scale_ratio, why = figure.scale_ratio, f"{figure.unit} to the unit of {figure.metric}"
        if figure.per_device:
            if devices is None:
                why = "per device, and the row does not tell of how many"
                fields.note("refused", figure.field, why)
                continue
            scale_ratio, why = scale_ratio * devices, f"{why}, times {devices} devices"
        why = why if scale_ratio != 1.0 or figure.per_device else ""
        fields.report(
            figure.field, figure.metric, figure.statistic, scale_ratio=scale_ratio, why=why
        )


def _devices(fields: Fields, mapping: ResultMap) -> int | None:
    if not isinstance(mapping.devices, FromField):
        return mapping.devices
    if _number(fields, mapping.devices.field, "devices") is None:
        return None
    count = fields.count(mapping.devices.field)
    if count == 0:
        raise fields.bad(mapping.devices.field, count, "no number of devices that worked")
    return count


def _window_s(fields: Fields, mapping: ResultMap) -> tuple[float, float] | None:
    if mapping.window is None:
        return None
    start = _number(fields, mapping.window.start, "window.start")
    end = _number(fields, mapping.window.end, "window.end")
    if start is None or end is None:
        return None
    if end <= start:
        raise fields.bad(mapping.window.end, end, f"not after {mapping.window.start}")
    fields.note("taken", mapping.window.start)
    fields.note("taken", mapping.window.end)
    return start * mapping.window.scale_ratio, end * mapping.window.scale_ratio


def _text(fields: Fields, source: str | FromField | None) -> str | None:
    if not isinstance(source, FromField):
        return source
    value = fields.raw(source.field)
    return None if value is None else str(value)


def _number_or_text(value: Any) -> Json:
    """A setting as a whole number, a number or a text; a cell of CSV tells which by its form."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return int(value) if math.isfinite(value) and value == int(value) else value
    if not isinstance(value, str):
        return str(value)
    try:
        number = float(value)
    except ValueError:
        return value
    if not math.isfinite(number):
        return value
    return int(number) if number == int(number) else number
