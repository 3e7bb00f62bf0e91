"""Fields of another tool's document: each read by its type, and each accounted for.

What was taken, converted or refused is noted as it is read; what nobody asked for is noted as
kept. Unknown is None: a field that is absent, null or empty never becomes zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from wattbench.core.redaction import without_credentials
from wattbench.core.run import READ_AS_ZERO, ReportedFigure
from wattbench.interchange.results.document import BadDocument
from wattbench.interchange.results.measurement import Fate, Note

MAX_COUNT = 10**15
"""No count of tokens or requests is larger."""
MAX_NUMBER = 1e30
"""No figure of any unit is larger; beyond it, products and ratios leave what a float holds."""
MAX_NOTES_EACH = 200


class Fields:
    """A JSON object of a result file.

    Args:
        place: File, and line or index in it, for messages.
        values: The object.
        parent: The object that it lies in, which keeps figures and notes of both.
        prefix: Path of the object in the document.
    """

    def __init__(
        self, place: str, values: Any, *, parent: Fields | None = None, prefix: str = ""
    ) -> None:
        if not isinstance(values, Mapping):
            what = type(values).__name__
            raise BadDocument(f"{place}: {prefix or 'the document'} is a {what}, not an object")
        self.place, self._values, self._prefix = place, values, prefix
        self._seen: set[str] = set()
        self._children: list[Fields] = []
        self._reported: list[ReportedFigure] = [] if parent is None else parent._reported
        self._notes: list[Note] = [] if parent is None else parent._notes
        if parent is not None:
            parent._children.append(self)

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def raw(self, name: str) -> Any:
        """A value as it stands, None if absent."""
        self._seen.add(name)
        return self._values.get(name)

    def number(self, name: str) -> float | None:
        """A finite number; None if absent or null.

        Raises:
            BadDocument: If there is something else.
        """
        value = self.raw(name)
        if value is None:
            return None
        return self._checked(name, value)

    def count(self, name: str) -> int | None:
        """A whole number from 0; None if absent or null.

        Raises:
            BadDocument: If there is something else.
        """
        value = self.number(name)
        if value is None:
            return None
        if value < 0 or value != int(value) or value > MAX_COUNT:
            raise self.bad(name, value, "not a count")
        return int(value)

    def text(self, name: str) -> str | None:
        """A text that is not empty; None if absent, null or empty.

        Raises:
            BadDocument: If there is something else.
        """
        value = self.raw(name)
        if value is not None and not isinstance(value, str):
            raise self.bad(name, value, "not a text")
        return value or None

    def items(self, name: str) -> list[Any] | None:
        """A list; None if absent or null.

        Raises:
            BadDocument: If there is something else.
        """
        value = self.raw(name)
        if value is not None and not isinstance(value, list):
            raise self.bad(name, value, "not a list")
        return value

    def numbers(self, name: str) -> list[float] | None:
        """A list of finite numbers; None if absent or null.

        Raises:
            BadDocument: If there is something else.
        """
        values = self.items(name)
        return None if values is None else [self._checked(name, value) for value in values]

    def _checked(self, name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.bad(name, value, "not a number")
        if not -MAX_NUMBER <= value <= MAX_NUMBER:  # NaN is not either
            raise self.bad(name, value, "beyond anything that is measured")
        return float(value)

    def nested(self, name: str) -> Fields | None:
        """An object inside this one; None if absent or null."""
        value = self.raw(name)
        if value is None:
            return None
        asked = (child for child in self._children if child._prefix == self._path(name))
        return next(asked, None) or Fields(self.place, value, parent=self, prefix=self._path(name))

    def report(
        self,
        name: str,
        metric: str,
        statistic: str = "total",
        *,
        scale_ratio: float = 1.0,
        why: str = "",
        signed: bool = False,
    ) -> float | None:
        """Take a number as a figure that the tool reports, in this project's unit.

        What another field of the document has told already stands; this one is only kept.

        Args:
            name: The field.
            metric: What it is here.
            statistic: Which statistic of it.
            scale_ratio: This project's unit over the file's.
            why: What was converted; the scale is said where it is not 1.
            signed: Whether it may be negative, as the delay of what came early.

        Returns:
            The value in this project's unit; None if absent, or an energy or a power of nothing.

        Raises:
            BadDocument: If it is no number, or negative where nothing can be.
        """
        value = self.number(name)
        if value is None:
            return None
        if value <= 0 and _never_zero(metric, statistic):
            self.note("refused", name, f"{READ_AS_ZERO}: {metric} is {value:g}")
            return None
        if value < 0 and not signed:
            raise self.bad(name, value, f"and {metric} is never negative")
        told = self._told(metric, statistic)
        if told is not None:
            self.note("kept", name, f"{told} tells it already")
            return value * scale_ratio
        self.note(
            "converted" if scale_ratio != 1.0 or why else "taken", name, why or _scaled(scale_ratio)
        )
        figure = ReportedFigure(
            metric=metric, statistic=statistic, value=value * scale_ratio, field=self._path(name)
        )
        self._reported.append(figure)
        return figure.value

    def add(self, figure: ReportedFigure, why: str) -> None:
        """Take a figure that follows from a list, unless a field of the document tells it.

        Args:
            figure: What follows; its field is the list.
            why: How it follows.
        """
        if figure.value <= 0 and _never_zero(figure.metric, figure.statistic):
            self.note("refused", figure.field, f"{READ_AS_ZERO}: {figure.metric} is 0 or less")
        elif self._told(figure.metric, figure.statistic) is None:
            self.note("converted", figure.field, why)
            self._reported.append(replace(figure, field=self._path(figure.field)))

    def _told(self, metric: str, statistic: str) -> str | None:
        """The field that a figure was taken from, None if it was not."""
        figures = (r for r in self._reported if (r.metric, r.statistic) == (metric, statistic))
        return next((figure.field for figure in figures), None)

    def note(self, fate: Fate, name: str, why: str = "", *, claimed: bool = True) -> None:
        """Say what became of a field; ``claimed``: the file holds it for a valid figure."""
        self._seen.add(name)
        self._notes.append(Note(fate=fate, field=self._path(name), why=why, claimed=claimed))

    def bad(self, name: str, value: object, what: str) -> BadDocument:
        """The error of a value that cannot be meant."""
        shown = without_credentials(repr(value))
        shown = shown if len(shown) <= 60 else shown[:57] + "…"
        return BadDocument(f"{self.place}: {self._path(name)} is {shown}, {what}")

    @property
    def reported(self) -> tuple[ReportedFigure, ...]:
        """Figures taken so far, of the whole document."""
        return tuple(self._reported)

    def notes(self) -> tuple[Note, ...]:
        """What became of every field, of the whole document; call it last."""
        kept = [Note(fate="kept", field=name) for name in self._unseen()]
        return (*self._notes, *kept[:MAX_NOTES_EACH])

    def _unseen(self) -> Iterator[str]:
        yield from (self._path(name) for name in self._values if name not in self._seen)
        for child in self._children:
            yield from child._unseen()

    def _path(self, name: str) -> str:
        return f"{self._prefix}.{name}" if self._prefix else name


def _never_zero(metric: str, statistic: str) -> bool:
    """Whether a figure is an energy or a power: no machine that is on draws nothing."""
    return statistic != "sd" and metric.endswith(("_joules", "_watts"))


def _scaled(scale_ratio: float) -> str:
    return "" if scale_ratio == 1.0 else f"times {scale_ratio:g}"
