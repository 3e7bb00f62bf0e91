"""Numbers with a 90 % band, and how bands go through a formula.

A band is read as a two-piece lognormal distribution: its logarithm is normal below the value with
one width and above it with another, so that nothing goes below zero and a skewed interval stays
skewed. A formula is evaluated once on the values and once on draws; the band of the result is the
middle 90 % of the draws. Draws of one name are the same wherever it stands, so a figure that two
options share cancels between them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from wattbench.core.errors import UsageError
from wattbench.tpf.arrays import Array

Kind = Literal["given", "measured", "modelled", "nameplate", "assumed"]
ORDER: tuple[Kind, ...] = ("given", "measured", "modelled", "nameplate", "assumed")
"""Best to worst; a result has the worst kind of what it came from. ``given`` is what users say of
their own site."""
Z90 = 1.6449
DRAWS = 4096
FRACTION = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A positive number with its 90 % band.

    Attributes:
        value: The number, in the unit that its name says.
        low: Lower end; the value itself where the source gives a point.
        high: Upper end.
        kind: How it is known.
    """

    value: float
    low: float
    high: float
    kind: Kind = "modelled"

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.value <= self.high < np.inf:
            raise UsageError(
                f"{self.value:g} with the band {self.low:g} to {self.high:g}: a band is positive "
                f"and holds its value"
            )

    def draws(self, name: str, seed: int = 0, n: int = DRAWS) -> Array:
        """``n`` draws [unit of the value]; equal names, seeds and n give equal quantiles."""
        return self.at(normal_draws(name, seed, n))

    def at(self, sd_count: Array | float) -> Array:
        """Where it is [unit of the value] at a standard normal quantile: ±Z90 are its ends."""
        z = np.asarray(sd_count)
        width = np.where(z < 0, np.log(self.value / self.low), np.log(self.high / self.value))
        return np.asarray(self.value * np.exp(z / Z90 * width))

    def times(self, factor: float) -> Band:
        """The band in another unit, or of so many of it."""
        return Band(
            value=self.value * factor,
            low=self.low * factor,
            high=self.high * factor,
            kind=self.kind,
        )

    def as_json(self) -> dict[str, Any]:
        """``value``, ``low``, ``high`` and ``kind``."""
        return {"value": self.value, "low": self.low, "high": self.high, "kind": self.kind}


def exactly(value: float, kind: Kind = "nameplate") -> Band:
    """A number whose source gives no band."""
    return Band(value=value, low=value, high=value, kind=kind)


def normal_draws(name: str, seed: int = 0, n: int = DRAWS) -> Array:
    """Standard normal draws that belong to a name."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(n)


def through(
    formula: Callable[..., Any], bands: Mapping[str, Band], seed: int = 0, **exact: Any
) -> Band:
    """A formula's value with its band.

    Args:
        formula: Takes each of ``bands`` by its name, as a number and as an array of draws.
        bands: Its uncertain arguments.
        seed: Of the draws.
        exact: Its other arguments.
    """
    drawn = formula(**{name: band.draws(name, seed) for name, band in bands.items()}, **exact)
    value = formula(**{name: band.value for name, band in bands.items()}, **exact)
    return from_draws(float(value), np.asarray(drawn), worst(*bands.values()))


def from_draws(value: float, drawn: Array, kind: Kind) -> Band:
    """A value with the middle 90 % of its draws, widened to hold the value."""
    low, high = np.quantile(drawn, [(1 - FRACTION) / 2, (1 + FRACTION) / 2])
    return Band(value=value, low=min(float(low), value), high=max(float(high), value), kind=kind)


def worst(*bands: Band) -> Kind:
    """The kind of what is made of some bands."""
    return max((band.kind for band in bands), key=ORDER.index, default="assumed")
