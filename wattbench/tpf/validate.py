"""How far the function is off where it has not looked, and which rankings it gets right.

Nothing fitted has seen a left-out point: neither its own curve, nor the pooled shape, nor the
parameters, nor the factor of the band. The parameters are fitted once for each of `FOLDS` parts
of the left-out points, without any of that part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from wattbench.core.errors import UsageError
from wattbench.tpf.arrays import Array
from wattbench.tpf.process import fit_process, on_other_rows
from wattbench.tpf.table import Table

FOLDS = 12
INTERIOR_POINTS = 5
"""Points of a sweep whose interior is scored when single points are left out."""
CELL = ("machine", "machine_count", "model", "precision")
"""What two loads of one task differ in when they are ranked."""
EQUAL_FRACTION = 0.05
"""Concurrencies that differ by less are equal: averages of one limit differ by as much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Predictions of points that were left out.

    Attributes:
        table: All points.
        rows: Those that were predicted.
        predicted_joules: Joules per output token, for each of ``rows``.
        log_half_width: Of the 90 % band, in logarithms.
    """

    table: Table
    rows: np.ndarray
    predicted_joules: Array
    log_half_width: Array

    @property
    def error_fractions(self) -> Array:
        """Absolute relative error of each prediction."""
        truth = self.table.energy_per_output_token_joules[self.rows]
        return np.asarray(np.abs(self.predicted_joules / truth - 1))

    @property
    def inside(self) -> Array:
        """1 where the point lies in its 90 % band."""
        truth = self.table.energy_per_output_token_joules[self.rows]
        off = np.abs(np.log(self.predicted_joules / truth))
        return np.asarray(off <= self.log_half_width, dtype=float)

    @property
    def half_width_fractions(self) -> Array:
        """Half-width of each band over the value predicted."""
        return np.asarray(np.sinh(self.log_half_width))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Pairs of loads of one task at one concurrency.

    Attributes:
        declared: Those whose ratio's 90 % band leaves out 1.
        right: Those of them that are ordered as measured.
        count: All of them.
    """

    declared: int
    right: int
    count: int


Told = Callable[[str], None]


def leave_one_out(
    table: Table, told: Told = lambda _: None, seed: int = 0, folds: int = FOLDS
) -> Validation:
    """Predict each interior point of the sweeps of `INTERIOR_POINTS` or more from all the others.

    Raises:
        UsageError: If there is no such sweep.
    """
    interior = [rows[1:-1] for rows in table.groups().values() if len(rows) >= INTERIOR_POINTS]
    if not interior:
        raise UsageError(
            f"no sweep has {INTERIOR_POINTS} points; --by names the columns of a sweep, "
            f"now {', '.join(table.by)}"
        )
    units = [np.array([row]) for row in np.concatenate(interior)]
    return _left_out(table, units, told, seed, folds)


def leave_group_out(
    table: Table,
    columns: Sequence[str],
    told: Told = lambda _: None,
    seed: int = 0,
    folds: int = FOLDS,
) -> Validation:
    """Predict all points of each combination of some columns from all the others.

    Raises:
        UsageError: If there is only one combination.
    """
    units = list(table.rows_by(columns).values())
    if len(units) < 2:
        raise UsageError(f"there is only one {', '.join(columns)}: nothing is left to predict from")
    return _left_out(table, units, told, seed, folds)


def _left_out(
    table: Table, units: list[np.ndarray], told: Told, seed: int, count: int
) -> Validation:
    target = np.log(table.energy_per_output_token_joules)
    log, half = np.full(len(table), np.nan), np.full(len(table), np.nan)
    order = np.random.default_rng(seed).permutation(len(units))
    folds = [part for part in np.array_split(order, count) if len(part)]
    for number, fold in enumerate(folds, 1):
        told(f"{number} of {len(folds)} folds")
        left = [units[place] for place in fold]
        seen = np.setdiff1d(np.arange(len(table)), np.concatenate(left))
        process = fit_process(table.take(seen), target[seen])
        where = {int(row): place for place, row in enumerate(seen)}
        others = [
            np.array([where[int(row)] for row in units[place]])
            for place in order
            if place not in set(fold)
        ]
        factor = process.factor(others)
        trust = np.ones(len(table))
        trust[seen] = process.trust
        found = on_other_rows(process, table, target, trust).left_out(left)
        for rows in left:
            log[rows], half[rows] = found.log[rows], factor * found.log_sd[rows]
    rows = np.flatnonzero(np.isfinite(log))
    return Validation(
        table=table, rows=rows, predicted_joules=np.exp(log[rows]), log_half_width=half[rows]
    )


def rank_pairs(found: Validation) -> Pairs:
    """Which pairs of predictions are declared apart, and how many of those are in order.

    Two rows are a pair if they share the task, differ in `CELL`, and run at one concurrency.
    """
    table = found.table.take(found.rows)
    cells = _codes(table, [name for name in CELL if name in (*table.words, *table.numbers)])
    tasks = _codes(table, [name for name in ("task",) if name in table.words])
    octaves = np.log(table.concurrency_count)
    first, second = np.triu_indices(len(table), 1)
    pair = (tasks[first] == tasks[second]) & (cells[first] != cells[second])
    pair &= np.abs(octaves[first] - octaves[second]) <= np.log1p(EQUAL_FRACTION)
    first, second = first[pair], second[pair]
    log = np.log(found.predicted_joules)
    gap = log[first] - log[second]
    apart = np.abs(gap) > np.hypot(found.log_half_width[first], found.log_half_width[second])
    truth = np.log(table.energy_per_output_token_joules)
    right = (gap * (truth[first] - truth[second]) > 0) & apart
    return Pairs(declared=int(apart.sum()), right=int(right.sum()), count=len(first))


def _codes(table: Table, columns: Sequence[str]) -> np.ndarray:
    codes = np.zeros(len(table), dtype=int)
    if columns:
        for number, rows in enumerate(table.rows_by(columns).values()):
            codes[rows] = number
    return codes
