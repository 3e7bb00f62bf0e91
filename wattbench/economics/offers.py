"""What may be bought, as a scenario writes it: machines, their points and prices, and fleets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from wattbench.core.energy import Boundary
from wattbench.core.errors import DocumentError
from wattbench.documents import Document
from wattbench.economics.quantity import Positive, Quantity, Share
from wattbench.hardware import load_profile

HALF_WIDTH_FRACTION = 0.1
"""Of the 90 % band of a measured figure that is written without one."""
Name = Annotated[str, Field(pattern=r"^[\w.+-]{1,40}$")]
Count = Annotated[int, Field(ge=1, le=10**7)]
Counts = Annotated[
    tuple[Count, ...],
    Field(min_length=1, max_length=12),
    BeforeValidator(lambda value: [value] if isinstance(value, int) else value),
]


def _as_measured(number: Quantity) -> Quantity:
    stated = "kind" in number.model_fields_set
    return number if stated else number.model_copy(update={"kind": "measured"})


Reading = Annotated[Positive, AfterValidator(_as_measured)]
"""A figure of a point: measured, if nothing else is written."""


def loads(load: Callable[[str], object], name: str) -> str:
    """A name that can be loaded, checked where it is written so that the error has its line."""
    try:
        load(name)
    except DocumentError as error:
        raise ValueError(str(error)) from error
    return name


class Measured(Document):
    """Measured operating points: stored runs, or a CSV file; see ``wattbench.tpf.table``.

    Attributes:
        runs: Selector of stored runs; machine, model, boundary and bands are their own.
        csv: Path, relative to the scenario.
        machine: Its name in the table.
        model: Its name in the table.
        boundary: What the joules of the table include.
        band_fraction: Half-width of the 90 % band of each figure of the table; None: 0.1.
    """

    runs: Annotated[str, Field(min_length=1)] | None = None
    csv: str | None = None
    machine: str | None = None
    model: str | None = None
    boundary: Boundary | None = None
    band_fraction: Share | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Measured:
        if (self.runs is None) == (self.csv is None):
            raise ValueError("needs either csv or runs")
        if self.runs is not None and self.model_fields_set != {"runs"}:
            raise ValueError("runs know their machine, model, boundary and bands; drop the rest")
        missing = [n for n in ("machine", "model", "boundary") if getattr(self, n) is None]
        if self.csv is not None and missing:
            raise ValueError(f"a csv needs {', '.join(missing)} too")
        return self


class Point(Document):
    """One measured operating point of one replica; a plain figure has a band of 10 %."""

    concurrency: Count
    output_tokens_per_s: Reading
    energy_per_output_token_joules: Reading
    boundary: Boundary


class Rent(Document):
    """Rent of a device, and whether its energy is in it."""

    usd_per_device_hour: Positive
    includes_energy: bool


class Part(Document):
    """A part of a fleet: which option serves which tiers."""

    option: Name
    tiers: Annotated[tuple[Name, ...], Field(min_length=1)]


class Option(Document):
    """What may be bought: a machine, or a fleet of other options.

    Attributes:
        name: What results call it.
        machine: A hardware profile.
        like: Profile that blanks of the machine are taken from.
        engine: Software; options of one engine share its drift.
        devices_per_node: Where the profile does not say, or says something else.
        devices_per_rack: Else as many whole nodes as ``rack_kw`` takes.
        devices_per_replica: Of points and tables, one; of modelled points one or several, of which
            each tier takes the cheapest that reaches it; None: the fewest that hold the model.
        devices_available: Most that can be had.
        provisioned_watts_per_device: A device with its share of host and network, no facility.
        capex_usd_per_device: Price of a device.
        rent: In its place.
        embodied_kgco2e_per_device: Carbon of making one.
        quality: Measured quality as served, by metric.
        measured: Operating points of a file, or of stored runs.
        points: Operating points, written out.
        fleet: In place of all that.
    """

    name: Name
    machine: str | None = None
    like: str | None = None
    engine: str = "its own engine"
    devices_per_node: Count | None = None
    devices_per_rack: Count | None = None
    devices_per_replica: Counts | None = None
    devices_available: Count | None = None
    provisioned_watts_per_device: Positive | None = None
    capex_usd_per_device: Positive | None = None
    rent: Rent | None = None
    embodied_kgco2e_per_device: Positive | None = None
    quality: dict[str, Positive] = Field(default_factory=dict)
    measured: Measured | None = None
    points: tuple[Point, ...] = ()
    fleet: tuple[Part, ...] = ()

    @field_validator("machine", "like")
    @classmethod
    def _is_a_machine(cls, name: str | None) -> str | None:
        return name if name is None else loads(load_profile, name)

    @field_validator("points")
    @classmethod
    def _unlike(cls, points: tuple[Point, ...]) -> tuple[Point, ...]:
        first: dict[int, int] = {}
        for place, point in enumerate(points):
            before = first.setdefault(point.concurrency, place)
            if before != place:
                raise ValueError(
                    f"points {before} and {place} (from 0) both have concurrency "
                    f"{point.concurrency}; keep one of them"
                )
        return points

    @model_validator(mode="after")
    def _one_of(self) -> Option:
        if (self.machine is None) == (not self.fleet):
            raise ValueError("needs either machine or fleet")
        if self.fleet and len(self.model_fields_set - {"name", "fleet"}):
            raise ValueError("a fleet has nothing but its parts; write the rest at their options")
        if self.capex_usd_per_device and self.rent:
            raise ValueError("is bought or rented: drop capex_usd_per_device or rent")
        if self.measured and self.points:
            raise ValueError("has measured and points: drop one")
        sizes = self.devices_per_replica or ()
        if self.measured and self.measured.runs and sizes:
            raise ValueError("stored runs have the devices that they had; drop devices_per_replica")
        if (self.points or (self.measured and self.measured.csv)) and len(sizes) != 1:
            raise ValueError(
                "measured points need one devices_per_replica, the devices that gave them"
            )
        boundaries = {point.boundary for point in self.points}
        boundaries |= (
            {self.measured.boundary} if self.measured and self.measured.boundary else set()
        )
        if "facility" in boundaries:
            raise ValueError(
                "joules at the facility have a PUE inside, and the site's would count twice: give "
                "them at the node or the rack"
            )
        if len(boundaries) > 1:
            raise ValueError(f"points of one option need one boundary, not {sorted(boundaries)}")
        return self

    def defaults(self) -> Iterator[tuple[str, Quantity]]:
        """Bands that its measured figures are given because none is written, with their place."""
        band = Quantity(value=HALF_WIDTH_FRACTION, source="default")
        read = [(p.output_tokens_per_s, p.energy_per_output_token_joules) for p in self.points]
        if any(number.low is None for pair in read for number in pair):
            yield f"points of {self.name}: band_fraction", band
        if self.measured and self.measured.csv and self.measured.band_fraction is None:
            yield f"csv of {self.name}: band_fraction", band
