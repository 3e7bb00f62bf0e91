"""The scenario file: what is asked for, where it stands, and what may be bought."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from wattbench.core.energy import Boundary
from wattbench.core.errors import UsageError
from wattbench.core.slo import parse_slo
from wattbench.documents import Document, find_document, load_document, shipped_names
from wattbench.economics.quantity import AtLeastOne, Number, Positive, Quantity, Share

FOLDER = "scenarios"
MIX = "mix"
"""Name of the case in which one option serves every tier."""
Name = Annotated[str, Field(pattern=r"^[\w.+-]{1,40}$")]
Count = Annotated[int, Field(ge=1, le=10**7)]
Tokens = Annotated[int, Field(ge=1, le=10**7)]
Counts = Annotated[
    tuple[Count, ...],
    Field(min_length=1, max_length=12),
    BeforeValidator(lambda value: [value] if isinstance(value, int) else value),
]


class Load(Document):
    """Lengths of a request [tokens]."""

    input_tokens: Tokens
    output_tokens: Tokens


class Floor(Document):
    """The least quality that counts: a metric, and what it must reach."""

    metric: Name
    minimum: Positive


class Tier(Document):
    """Users who are promised one speed at one price.

    Attributes:
        name: What results call it.
        tokens_per_s_per_user: Speed that each user is to see.
        share: Its part of all output tokens.
        price_usd_per_mtoken: What a million output tokens sell for.
        slo: Other limits, such as ``ttft:p95<1s``: they go into the request for measurement.
        quality_floor: What a model as served must reach.
        load: Lengths of its requests; None: those of the scenario.
    """

    name: Name
    tokens_per_s_per_user: Positive
    share: Share = Quantity(value=1)
    price_usd_per_mtoken: Positive | None = None
    slo: str | None = None
    quality_floor: Floor | None = None
    load: Load | None = None

    @field_validator("name")
    @classmethod
    def _not_the_mix(cls, name: str) -> str:
        if name == MIX:
            raise ValueError(f"{MIX!r} means all tiers together; choose another name")
        return name

    @field_validator("slo")
    @classmethod
    def _parses(cls, slo: str | None) -> str | None:
        if slo is not None:
            try:
                parse_slo(slo)
            except UsageError as error:
                raise ValueError(str(error)) from error
        return slo


class Demand(Document):
    """What is asked for; without ``output_tokens_per_s``, as much as the site gives."""

    output_tokens_per_s: Positive | None = None
    tiers: Annotated[tuple[Tier, ...], Field(min_length=1, max_length=12)]

    @field_validator("tiers")
    @classmethod
    def _shares(cls, tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
        _once([tier.name for tier in tiers])
        total = sum(tier.share.value for tier in tiers)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of the tiers sum to {total:g}; they must sum to 1")
        return tiers


class Circuits(Document):
    """Circuits that feed racks; of a redundant pair count one.

    Attributes:
        count: How many.
        kw: What one may carry all the time [kW].
    """

    count: Count
    kw: Positive


class Site(Document):
    """Where the machines stand.

    Attributes:
        delivered_mw: Power that is delivered [MW].
        delivered_at: Where it is counted: ``grid`` is before the PUE, ``it`` after it.
        pue: Facility power over IT power.
        rack_kw: What one rack may be provisioned with [kW].
        racks: Places for racks; None: no limit.
        circuits: None: no limit.
        cooling_kw: Heat of IT that can be carried away [kW]; None: no limit.
        oversubscription_ratio: Provisioned power that may be installed for each watt of IT power.
        power_usd_per_kwh: Price of energy at the meter of the facility.
        grid_gco2e_per_kwh: Carbon of that energy.
        utilisation_fraction: Part of the time that an installed machine works, on average.
    """

    delivered_mw: Positive
    delivered_at: Literal["grid", "it"]
    pue: AtLeastOne
    rack_kw: Positive
    racks: Count | None = None
    circuits: Circuits | None = None
    cooling_kw: Positive | None = None
    oversubscription_ratio: AtLeastOne = Quantity(value=1)
    power_usd_per_kwh: Number
    grid_gco2e_per_kwh: Number
    utilisation_fraction: Share


class Finance(Document):
    """How what is bought is spread over its tokens.

    Attributes:
        lifetime_years: Straight line over this time.
        discount_rate_fraction: Interest per year on what is not yet written off.
        capex_ratio: Host, network and installation: all capital over that of the devices.
        opex_fraction_per_year: Upkeep, as a part of the capital.
    """

    lifetime_years: Positive
    discount_rate_fraction: Number = Quantity(value=0)
    capex_ratio: AtLeastOne = Quantity(value=1)
    opex_fraction_per_year: Number = Quantity(value=0)


class Measured(Document):
    """Measured operating points: stored runs, or a CSV file; see ``wattbench.tpf.table``.

    Attributes:
        runs: Selector of stored runs; machine, model, boundary and bands are their own.
        csv: Path, relative to the scenario.
        machine: Its name in the table.
        model: Its name in the table.
        boundary: What the joules of the table include.
        band_fraction: Half-width of the 90 % band of each figure of the table.
    """

    runs: Annotated[str, Field(min_length=1)] | None = None
    csv: str | None = None
    machine: str | None = None
    model: str | None = None
    boundary: Boundary | None = None
    band_fraction: Share = Quantity(value=0.1)

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
    output_tokens_per_s: Positive
    energy_per_output_token_joules: Positive
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


class Scenario(Document):
    """A purchase to be decided.

    Attributes:
        name: What results call it.
        about: One sentence.
        model: A model descriptor.
        load: Lengths of a request.
        demand: Tiers, and how much of them.
        site: Where.
        finance: How capital is spread.
        engine_drift_ratio: Joules per token of the engine that will run over those of the one that
            was measured or modelled; None: taken as none.
        conventions: Other people's figures to print beside ours.
        options: What may be bought.
    """

    name: Name
    about: Annotated[str, Field(min_length=1, max_length=400)]
    model: str
    load: Load
    demand: Demand
    site: Site
    finance: Finance
    engine_drift_ratio: Positive | None = None
    conventions: tuple[Literal["inferencex-provisioned"], ...] = ()
    options: Annotated[tuple[Option, ...], Field(min_length=1, max_length=100)]
    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _known(self, info: ValidationInfo) -> Scenario:
        self._folder = Path((info.context or {}).get("folder", ""))
        return self

    @field_validator("options")
    @classmethod
    def _fleets(cls, options: tuple[Option, ...], info: ValidationInfo) -> tuple[Option, ...]:
        _once([option.name for option in options])
        single = {option.name for option in options if not option.fleet}
        demand = info.data.get("demand")
        tiers = [tier.name for tier in demand.tiers] if isinstance(demand, Demand) else []
        for option in options:
            for part in option.fleet:
                if part.option not in single:
                    raise ValueError(f"fleet {option.name} names {part.option!r}, no machine here")
            served = [name for part in option.fleet for name in part.tiers]
            if option.fleet and tiers and sorted(served) != sorted(tiers):
                raise ValueError(
                    f"fleet {option.name} must serve each of {', '.join(tiers)} once, not "
                    f"{', '.join(served)}"
                )
        return options

    def load_of(self, tier: Tier) -> Load:
        """Lengths of a tier's requests."""
        return tier.load or self.load

    @property
    def folder(self) -> Path:
        """What paths in it are relative to."""
        return self._folder

    def numbers(self) -> Iterator[tuple[str, Quantity]]:
        """Every number that was written or defaulted, with its dotted place."""
        yield from _numbers(self, "")


def _once(names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} stands there twice")


def _numbers(value: object, place: str) -> Iterator[tuple[str, Quantity]]:
    if isinstance(value, Quantity):
        yield place, value
    elif isinstance(value, Document):
        for name in type(value).model_fields:
            yield from _numbers(getattr(value, name), f"{place}.{name}" if place else name)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{place}.{key}")
    elif isinstance(value, tuple):
        for index, inner in enumerate(value):
            name = getattr(inner, "name", str(index))
            yield from _numbers(inner, f"{place}.{name}")


def load_scenario(name_or_path: str) -> Scenario:
    """A shipped scenario by name, or any by path.

    Raises:
        DocumentError: If there is none, or the file is wrong.
    """
    return load_document(find_document(FOLDER, name_or_path, "scenario"), Scenario)


def scenario_names() -> list[str]:
    """Names of the shipped scenarios."""
    return shipped_names(FOLDER)
