"""Prometheus' text format, as exporters and servers print it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_LINE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+(-?\d+))?\s*$")
_LABEL = re.compile(r'([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample of a page.

    Attributes:
        name: Metric name.
        labels: Its labels.
        value: Its value, in whatever unit the metric has.
        stamp_unix_s: The exporter's own stamp [Unix s], None if it gives none.
    """

    name: str
    labels: Mapping[str, str]
    value: float
    stamp_unix_s: float | None


def parse_page(text: str, wanted: tuple[str, ...] = ("",)) -> list[Sample]:
    """Samples of a page in Prometheus' text format; lines that are none are passed over.

    Args:
        text: The page.
        wanted: Beginnings of the names that are looked for; a page has hundreds of others.
    """
    samples = []
    for line in text.splitlines():
        found = _LINE.match(line) if line.startswith(wanted) else None
        if found is None:
            continue
        name, labels, value, stamp = found.groups()
        try:
            number = float(value)
        except ValueError:
            continue
        samples.append(
            Sample(
                name=name,
                labels={k: re.sub(r"\\(.)", r"\1", v) for k, v in _LABEL.findall(labels or "")},
                value=number,
                stamp_unix_s=None if stamp is None else int(stamp) / 1000,
            )
        )
    return samples
