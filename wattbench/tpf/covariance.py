r"""How alike two operating points are: the covariance of their log joules per token.

The logarithm of joules per output token is a Gaussian process over log₂ of the concurrency and
over what is known of the points. Its covariance is a sum of parts, each of which asks whether two
points share something, and how near they are:

    k(i, j) = Σ_parts  s² · [i and j share the part's columns] · m(|x_i − x_j| / ℓ)

with m the Matérn function of smoothness 5/2. One part is shared by all points: the common shape.
Parts of a machine, a model, a precision or a task say how those differ from it, parts of numbers
(size of the model, count of machines) that neighbours are alike, and that of a sweep what is its
own. So three points of a new sweep move a curve that all the others have shaped, and a point with
no sweep at all is predicted from its machine, its model and their neighbours.

Source: Rasmussen and Williams, *Gaussian Processes for Machine Learning*, sections 2.2, 4.2, 5.4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wattbench.tpf.arrays import Array
from wattbench.tpf.table import WORDS, Table

Kind = Literal["level", "shape", "number"]

LEVEL_VARIANCE = 25.0
"""Prior variance of the mean log: no opinion on the level of a whole table."""
APART_RATIO = 1.25
"""Numbers that differ by less are one: contexts of one workload scatter by as much."""
NOISE = 0.03
"""Where the fit of one point's noise starts."""
_ROOT5 = np.sqrt(5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One term of the sum.

    Attributes:
        name: What it stands for.
        kind: ``level`` is one offset, ``shape`` a function of log₂ concurrency, ``number`` a
            function of the logarithm of a numeric descriptor.
        columns: Columns whose text two points must share; none: all points share it.
        number: The numeric descriptor of kind ``number``.
        start: Standard deviation and length scale (in octaves of concurrency, or in logarithms of
            the number) where the fit starts, and which it is drawn to where data say nothing.
    """

    name: str
    kind: Kind
    columns: tuple[str, ...] = ()
    number: str = ""
    start: Array


def parts_for(table: Table) -> tuple[Part, ...]:
    """The parts that a table can tell apart: one for each way in which its rows group."""
    parts = [
        Part(name="pooled shape", kind="shape", start=np.array([2.0, 12.0])),
        Part(name="sweep", kind="level", columns=table.by, start=np.array([0.1])),
        Part(name="sweep shape", kind="shape", columns=table.by, start=np.array([0.05, 1.5])),
    ]
    seen = {_partition(table, ()), _partition(table, table.by)}
    words = [name for name in table.words if name in WORDS or name in table.by]
    software = tuple(name for name in WORDS if name in words and name not in _HARDWARE)
    for columns in [*((name,) for name in words), ("machine", "model"), software]:
        known = bool(columns) and set(columns) <= set(table.words)
        partition = _partition(table, columns) if known else ()
        if known and partition not in seen:
            seen.add(partition)
            start = _WORD_STARTS.get(columns, np.array([0.1, 6.0]))
            parts.append(Part(name=", ".join(columns), kind="shape", columns=columns, start=start))
    # Engines and devices have kinks at batch sizes of their own, the same in every sweep.
    hosts = ("machine",) if "machine" in table.words else ()
    parts.append(Part(name="kinks", kind="shape", columns=hosts, start=np.array([0.03, 0.6])))
    for name, column in table.numbers.items():
        finite = column[np.isfinite(column)]
        if len(finite) and finite.max() > APART_RATIO * finite.min():
            parts.append(Part(name=name, kind="number", number=name, start=_NUMBER_START))
    return tuple(parts)


_WORD_STARTS: Mapping[tuple[str, ...], Array] = {
    ("machine",): np.array([0.3, 6.0]),
    ("model",): np.array([0.4, 6.0]),
    ("task",): np.array([0.2, 6.0]),
}
_HARDWARE = ("machine", "parallelism")
_NUMBER_START = np.array([1.5, 5.0])
"""Nearly linear in the logarithm of the number over a factor of 100."""


def _partition(table: Table, columns: Sequence[str]) -> tuple[int, ...]:
    """Which rows go together, whatever the columns are called."""
    if not columns:
        return (0,) * len(table)
    first: dict[tuple[str, ...], int] = {}
    return tuple(first.setdefault(key, len(first)) for key in table.keys(columns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """What of a covariance does not depend on its parameters, for pairs of rows.

    Attributes:
        pairs: How many pairs of rows there are.
        where: For each part, the pairs that share its columns.
        apart: For each part, how far those are apart: in octaves of concurrency, or in logarithms
            of the part's number.
    """

    pairs: int
    where: tuple[np.ndarray, ...]
    apart: tuple[Array, ...]


def likeness(
    parts: Sequence[Part], sides: tuple[Table, Table], first: np.ndarray, second: np.ndarray
) -> Likeness:
    """Compare rows ``first`` of one table with rows ``second`` of another, pair by pair."""
    octaves = _apart([np.log2(side.concurrency_count) for side in sides], first, second)
    where, apart = [], []
    for part in parts:
        if part.kind == "number":
            logs = [np.log(side.numbers[part.number]) for side in sides]
            distance = _apart(logs, first, second)
            shared = np.flatnonzero(np.isfinite(distance))
        else:
            distance = octaves
            shared = _sharing(part.columns, sides, first, second)
        where.append(shared)
        apart.append(distance[shared])
    return Likeness(pairs=len(first), where=tuple(where), apart=tuple(apart))


def _apart(sides: Sequence[Array], first: np.ndarray, second: np.ndarray) -> Array:
    return np.asarray(np.abs(sides[0][first] - sides[1][second]))


def _sharing(
    columns: Sequence[str], sides: tuple[Table, Table], first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    if not columns:
        return np.arange(len(first))
    codes: dict[tuple[str, ...], int] = {}
    left, right = (
        np.array([codes.setdefault(key, len(codes)) if all(key) else -1 for key in side])
        for side in (table.keys(columns) for table in sides)
    )
    return np.flatnonzero((left[first] == right[second]) & (left[first] >= 0))


def start_of(parts: Sequence[Part]) -> Array:
    """Logarithms of the parameters where a fit starts; the last is the noise of a point."""
    return np.asarray(np.log(np.concatenate([*(part.start for part in parts), [NOISE]])))


def covariance(parts: Sequence[Part], like: Likeness, logs: Array) -> Array:
    """Covariance of each pair without the noise of single points, shape (pairs,).

    Args:
        parts: The terms.
        like: Comparison of the rows.
        logs: Logarithms of the parameters, as `start_of` lays them out.
    """
    total = np.full(like.pairs, LEVEL_VARIANCE)
    for where, (value, _) in zip(like.where, terms(parts, like, logs), strict=True):
        total[where] += value
    return total


def terms(
    parts: Sequence[Part], like: Likeness, logs: Array
) -> Iterator[tuple[Array, tuple[Array, ...]]]:
    """Each part's covariance of the pairs that share it, and its slope along each parameter."""
    place = 0
    for part, apart in zip(parts, like.apart, strict=True):
        height = np.exp(2 * logs[place])
        if part.kind == "level":
            value = np.full(len(apart), height)
            slope: tuple[Array, ...] = (2 * value,)
        elif part.kind == "shape":
            r = _ROOT5 * apart / np.exp(logs[place + 1])
            decay = height * np.exp(-r)
            value = (1 + r + r * r / 3) * decay
            slope = (2 * value, (r * r / 3) * (1 + r) * decay)
        else:
            square = (apart / np.exp(logs[place + 1])) ** 2
            value = height * np.exp(-square / 2)
            slope = (2 * value, value * square)
        yield value, slope
        place += len(part.start)
