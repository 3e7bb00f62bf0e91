"""Joules per token and tokens per second of any point: what is fitted, and where it may be asked.

Sweeps that were measured are interpolated; a machine with a model that was not is predicted from
what is known of the machine, of the model and of neighbours in size and count. Outside of the
concurrencies that were measured the function refuses: nothing bounds how wrong it would be. What
all points of a sweep may be off by alike is no scatter that a fit could see; it widens the band.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wattbench.core.errors import UsageError
from wattbench.tpf.arrays import Array, Scalar
from wattbench.tpf.bands import Band
from wattbench.tpf.process import NORMAL_90, Predicted, Process, fit_process
from wattbench.tpf.table import Table

RELATED = ("machine", "model")
"""A point without a sweep must share one of these with the table."""
UNSEEN = {"machine": 0.6, "model": 0.4, "task": 0.3, "": 0.25}
"""Spread of joules per token over machines, models of one size, tasks, and whatever else names a
sweep: *assumed*. A100 and H100 of one model are 0.3 apart (ML.ENERGY v2, left out: 63 % at p90);
machines of other kinds are more."""
ENOUGH_VALUES = 5
REACH = 2.0
"""How far beyond the numbers of a table, as a factor, a point may lie in one of them."""
NORMAL_95 = 1.96
_SLACK = 1.01
"""Averages of one limit on concurrency differ by as much."""


class OutsideDomain(UsageError):
    """A point is asked for where nothing was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The function at one point, with 90 % bands.

    Attributes:
        energy_per_output_token_joules: Of the boundary of the table.
        output_tokens_per_s: None if the table has too few rates.
        measured_points: Points of this very sweep in the table; 0: it is carried over from others.
        unseen: Columns whose value no row of the table has; the band is wider by what is assumed.
    """

    energy_per_output_token_joules: Band
    output_tokens_per_s: Band | None
    measured_points: int
    unseen: tuple[str, ...] = ()

    @property
    def mean_power_watts(self) -> Band | None:
        """Joules per token times tokens per second; bands add as if nothing linked them."""
        energy, rate = self.energy_per_output_token_joules, self.output_tokens_per_s
        if rate is None:
            return None
        value = energy.value * rate.value
        log_half = np.hypot(np.log(energy.high / energy.value), np.log(rate.high / rate.value))
        return _band(np.log(value), log_half)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenProductionFunction:
    """A table, fitted.

    Attributes:
        table: The operating points.
        energy: Process of the logarithm of joules per output token.
        rate: Process of the logarithm of output tokens per second; None if few rows have one.
        factors: Half-width of a 90 % band in standard deviations, at points of sweeps in the table
            and at points of others.
    """

    table: Table
    energy: Process
    rate: Process | None
    factors: tuple[Scalar, Scalar]

    def predict(self, points: Table) -> list[Prediction]:
        """The function at some points.

        Raises:
            OutsideDomain: If one has a concurrency that was not measured there, or shares neither
                machine nor model with the table.
        """
        points = points.completed_from(self.table)
        sweeps = self.table.groups()
        counts = [len(sweeps.get(key, ())) for key in points.keys(self.table.by)]
        for row in range(len(points)):
            self._check(points, row, counts[row])
        widths = np.array([self.factors[0] if count else self.factors[1] for count in counts])
        metered = [self._metered_fraction(points, row) for row in range(len(points))]
        unseen = [self._unseen(points, row) for row in range(len(points))]
        guessed = np.array([math.hypot(*(_spread(self.table, n) for n in each)) for each in unseen])
        common = np.hypot(np.log1p(metered), NORMAL_90 * guessed)
        energy = _bands(self.energy.predict(points), widths, common)
        rates = (
            _bands(self.rate.predict(points), widths, NORMAL_90 * guessed)
            if self.rate
            else [None] * len(points)
        )
        return [
            Prediction(
                energy_per_output_token_joules=each,
                output_tokens_per_s=rate,
                measured_points=count,
                unseen=new,
            )
            for each, rate, count, new in zip(energy, rates, counts, unseen, strict=True)
        ]

    def concurrency_range_count(self, points: Table, row: int) -> tuple[float, float] | None:
        """Concurrencies that a point may be asked at; None if nothing is related to it."""
        near = self._related(points, row)
        if not len(near):
            return None
        measured = self.table.concurrency_count[near]
        return float(measured.min()), float(measured.max())

    def _related(self, points: Table, row: int) -> np.ndarray:
        own = self.table.groups().get(points.keys(self.table.by)[row])
        if own is not None:
            return own
        near: set[int] = set()
        for name in RELATED:
            if name in self.table.words and name in points.words:
                same = self.table.rows_by((name,)).get((points.words[name][row],), np.array([]))
                near |= {int(each) for each in same}
        return np.array(sorted(near), dtype=int)

    def _unseen(self, points: Table, row: int) -> tuple[str, ...]:
        """Columns of which the table knows values, and not that of a point."""
        return tuple(
            name
            for name, column in self.table.words.items()
            if any(column) and points.words[name][row] not in column
        )

    def _metered_fraction(self, points: Table, row: int) -> Scalar:
        """How far the meters of the rows that a point rests on may all be off, 90 %."""
        near = self._related(points, row)
        half = self.table.energy_half_width_fraction[near] * NORMAL_90 / NORMAL_95
        return np.float64(np.median(half))

    def _check(self, points: Table, row: int, count: int) -> None:
        asked = points.concurrency_count[row]
        name = ", ".join(text for text in points.keys(self.table.by)[row] if text)
        limits = self.concurrency_range_count(points, row)
        if limits is None:
            known = [text for column in RELATED for text in self.table.words.get(column, ())]
            raise OutsideDomain(
                f"{name}: nothing in the table shares its machine or its model, so there is "
                f"nothing to predict it from; known: {', '.join(dict.fromkeys(known)) or 'neither'}"
                f". A modelled figure of any machine is in wattbench tpf ceilings"
            )
        for number, column in self.table.numbers.items():
            value, (least, most) = (
                points.numbers[number][row],
                (np.nanmin(column), np.nanmax(column)),
            )
            if value < least / REACH or value > most * REACH:
                raise OutsideDomain(
                    f"{name}: {number} {value:g} is beyond {least / REACH:.4g} to "
                    f"{most * REACH:.4g}; the table has {least:.4g} to {most:.4g}"
                )
        low, high = limits
        if not low / _SLACK <= asked <= high * _SLACK:
            whose = "this sweep" if count else "its machine and its model"
            raise OutsideDomain(
                f"{name}: concurrency {asked:g} is outside of {low:.4g} to {high:.4g}, where "
                f"{whose} was measured; ask within, or measure there"
            )


def fit(table: Table, seed: int = 0) -> TokenProductionFunction:
    """Fit the function to a table.

    Args:
        table: Operating points of one boundary.
        seed: Of the draw of sweeps that parameters of a large table are fitted on.
    """
    energy = fit_process(table, np.log(table.energy_per_output_token_joules), seed=seed)
    singles = [np.array([row]) for row in range(len(table))]
    cells = tuple(name for name in RELATED if name in table.words) or table.by
    new = energy.factor(list(table.rows_by(cells).values()))
    known = np.isfinite(table.output_tokens_per_s)
    rated = table.take(np.flatnonzero(known))
    rate = None
    if known.sum() > len(table) / 2:
        rate = fit_process(rated, np.log(rated.output_tokens_per_s), seed=seed)
    return TokenProductionFunction(
        table=table, energy=energy, rate=rate, factors=(energy.factor(singles), new)
    )


def _spread(table: Table, name: str) -> float:
    """Standard deviation, in logarithms, of what one more value of a column may differ by.

    A table that has `ENOUGH_VALUES` of it has shown that already; one that has few cannot.
    """
    known = len(set(table.words[name]) - {""})
    return UNSEEN.get(name, UNSEEN[""]) if known < ENOUGH_VALUES else 0.0


def _bands(found: Predicted, widths: Array, common: Array) -> list[Band]:
    half = np.hypot(widths * found.log_sd, common)
    return [_band(log, width) for log, width in zip(found.log, half, strict=True)]


def _band(log: Scalar, log_half: Scalar) -> Band:
    value = float(np.exp(log))
    spread = float(np.exp(log_half))
    return Band(value=value, low=value / spread, high=value * spread, kind="modelled")
