"""The scenario file: what is asked for, where it stands, and what may be bought."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from wattbench.core.errors import UsageError
from wattbench.core.slo import parse_slo
from wattbench.documents import Document, find_document, load_document, shipped_names
from wattbench.economics.offers import Count, Name, Option, loads
from wattbench.economics.quantity import AtLeastOne, Number, Positive, Quantity, Share
from wattbench.hardware import load_model

FOLDER = "scenarios"
MIX = "mix"
"""Name of the case in which one option serves every tier."""
Tokens = Annotated[int, Field(ge=1, le=10**7)]


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


class Scenario(Document):
    """A purchase to be decided.

    Attributes:
        name: What results call it; else the name of the file.
        about: One sentence, or nothing.
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
    about: Annotated[str, Field(max_length=400)] = ""
    model: str
    load: Load
    demand: Demand
    site: Site
    finance: Finance
    engine_drift_ratio: Positive | None = None
    conventions: tuple[Literal["inferencex-provisioned"], ...] = ()
    options: Annotated[tuple[Option, ...], Field(min_length=1, max_length=100)]
    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: object, info: ValidationInfo) -> object:
        stem = (info.context or {}).get("stem")
        if isinstance(data, dict) and stem:
            return {"name": re.sub(r"[^\w.+-]+", "-", stem)[:40]} | data
        return data

    @field_validator("model")
    @classmethod
    def _is_a_model(cls, name: str) -> str:
        return loads(load_model, name)

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
        for option in self.options:
            yield from option.defaults()


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
