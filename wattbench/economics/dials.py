"""Where every uncertain number of a formula stands: at its value, at one end, or drawn.

A formula asks for each of its numbers by name. The same formula so gives the value, the draws of a
Monte Carlo and the two ends of a tornado, and what two options share by name cancels between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wattbench.economics.quantity import Quantity
from wattbench.tpf.bands import Band, Kind, normal_draws, worst

DRAWS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A number that a formula asked for: its band, and what group of figures it belongs to."""

    band: Band
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dials:
    """The settings, and a record of what was read.

    Attributes:
        draws_count: Draws of each number; 0: the values alone.
        seed: Of the draws.
        turned: Numbers that stand elsewhere, by name, as standard normal quantiles.
        read: What was asked for, in that order.
    """

    draws_count: int = 0
    seed: int = 0
    turned: Mapping[str, Any] = field(default_factory=dict)
    read: dict[str, Read] = field(default_factory=dict)

    def normal(self, name: str) -> Any:
        """Where a number stands, as a standard normal quantile: one, or one for each draw."""
        if name in self.turned:
            return self.turned[name]
        return normal_draws(name, self.seed, self.draws_count) if self.draws_count else 0.0

    def at(self, name: str, number: Quantity | Band, group: str) -> Any:
        """A number where it stands: one, or one for each draw."""
        band = number.band if isinstance(number, Quantity) else number
        if band is None:
            return 0.0
        self.note(name, band, group)
        return band.at(self.normal(name)) if band.low < band.high else band.value

    def note(self, name: str, band: Band, group: str) -> None:
        """Remember that a number was read."""
        self.read.setdefault(name, Read(band=band, group=group))

    def kind(self, groups: frozenset[str]) -> Kind:
        """The worst kind of what was read of some groups."""
        return worst(*(read.band for read in self.read.values() if read.group in groups))
