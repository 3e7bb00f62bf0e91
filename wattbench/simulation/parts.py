"""What a scenario of the simulator writes of a machine's steps, of a site and of a trace."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from wattbench.core.errors import UsageError
from wattbench.documents import Document
from wattbench.routing.fleet import Autoscale, Series, Site, Transfer
from wattbench.routing.step import Lane, StepModel, affine
from wattbench.traces import Format, Trace, first, like, scaled, trace_from_spec

Kind = Literal["measured", "modelled", "assumed"]
NAME = r"^[\w.+-]{1,40}$"
Name = Annotated[str, Field(pattern=NAME)]
AtLeastZero = Annotated[float, Field(ge=0)]
Requests = Annotated[int, Field(ge=1, le=10**9)]
Ratio = Annotated[float, Field(ge=1e-6, le=1e6)]
Points = Annotated[tuple[tuple[float, float], ...], Field(min_length=1, max_length=10_000)]
MadeT = TypeVar("MadeT")


def made(make: Callable[[], MadeT]) -> MadeT:
    """What the engine makes of it; a refusal becomes an error of the file, at its line.

    Raises:
        ValueError: If the engine refuses it.
    """
    try:
        return make()
    except UsageError as error:
        raise ValueError(str(error)) from error


class LaneText(Document):
    """A lane, affine or with knots; see docs/simulator.md.

    Attributes:
        base: Of a step, whatever is in it.
        per_request: For each decoding request.
        per_prompt_token: For each token of prompts.
        tokens: In place of these three: [tokens computed in the step, seconds or joules].
        batch: Beside ``tokens``: [decoding requests, seconds or joules on top].
        per_context_token: For each token of the decoding requests' contexts.
        per_attended_token: For each token that a prompt's token attends to.
    """

    base: AtLeastZero | None = None
    per_request: AtLeastZero | None = None
    per_prompt_token: AtLeastZero | None = None
    tokens: Points | None = None
    batch: Points | None = None
    per_context_token: AtLeastZero = 0.0
    per_attended_token: AtLeastZero = 0.0

    @model_validator(mode="after")
    def _one_form(self) -> LaneText:
        affine_keys = ("base", "per_request", "per_prompt_token")
        given = [key for key in affine_keys if getattr(self, key) is not None]
        if self.tokens is None and self.base is None:
            raise ValueError("needs base, or tokens with points such as [[1, 0.01], [512, 0.04]]")
        if self.tokens is None and self.batch is not None:
            raise ValueError("batch stands beside tokens; with base write per_request")
        if self.tokens is not None and given:
            raise ValueError(f"has tokens and {given[0]}: write one or the other")
        made(self.lane)
        return self

    def lane(self) -> Lane:
        """As the engine takes it.

        Raises:
            UsageError: If it falls somewhere.
        """
        if self.tokens is not None:
            return Lane(
                tokens=self.tokens,
                batch=self.batch or (),
                per_context_token=self.per_context_token,
                per_attended_token=self.per_attended_token,
            )
        return affine(
            base=self.base or 0.0,
            per_request=self.per_request or 0.0,
            per_prompt_token=self.per_prompt_token or 0.0,
            per_context_token=self.per_context_token,
            per_attended_token=self.per_attended_token,
        )


class StepText(Document):
    """What a step takes and draws.

    Attributes:
        memory: Time of moving weights and caches [s]; an affine model has this lane only.
        arithmetic: Time of computing [s].
        energy: Energy above ``busy_watts`` [J].
        busy_watts: Drawn while the machine is busy, whatever it does [W].
        kind: How these numbers are known.
        source: Where they are from.
    """

    memory: LaneText
    arithmetic: LaneText | None = None
    energy: LaneText
    busy_watts: AtLeastZero
    kind: Kind = "assumed"
    source: str | None = None

    @model_validator(mode="after")
    def _steps(self) -> StepText:
        made(self.step)
        return self

    def step(self) -> StepModel:
        """As the engine takes it.

        Raises:
            UsageError: If a step would take no time.
        """
        return StepModel(
            memory=self.memory.lane(),
            arithmetic=Lane() if self.arithmetic is None else self.arithmetic.lane(),
            energy=self.energy.lane(),
            busy_watts=self.busy_watts,
        )


def _series_keys(value: Any, info: ValidationInfo) -> Any:
    """A number is a series of one value; a file is read where the scenario lies."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"at_s": [0.0], "values": [value]}
    if isinstance(value, dict) and "file" in value:
        if len(value) > 1:
            raise ValueError("file stands alone: at_s and values are its columns")
        path = Path((info.context or {}).get("folder", "")) / str(value["file"])
        return _read_series(path)
    return value


def _read_series(path: Path) -> dict[str, list[float]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    found: dict[str, list[float]] = {"at_s": [], "values": []}
    for number, row in enumerate(rows, start=2):
        for column, key in (("at_s", "at_s"), ("value", "values")):
            try:
                found[key].append(float(row[column]))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{path}:{number}: {column} = {row.get(column)!r}; each line needs two "
                    f"numbers under the heading at_s,value"
                ) from error
    return found


class SeriesText(Document):
    """A number, or one that is constant between instants.

    Attributes:
        at_s: Instants, the first one 0 [s].
        values: From each instant on.
    """

    at_s: Annotated[tuple[float, ...], Field(min_length=1)]
    values: Annotated[tuple[float, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _rises(self) -> SeriesText:
        made(self.series)
        return self

    def series(self) -> Series:
        """As the engine takes it.

        Raises:
            UsageError: If it has holes.
        """
        return Series(at_s=self.at_s, values=self.values)


Changing = Annotated[SeriesText, BeforeValidator(_series_keys)]


class SiteText(Document):
    """Where machines stand.

    Attributes:
        name: What pools and tables call it.
        pue: Energy at the site's meter over that of its machines.
        network_s: From the router to its machines [s].
        price_usd_per_kwh: None: unknown, so is the cost.
        carbon_gco2e_per_kwh: None: unknown, so are the emissions.
        cap_watts: Power cap over its machines together [W]; None: none.
    """

    name: Name
    pue: Annotated[float, Field(ge=1)] = 1.0
    network_s: AtLeastZero = 0.0
    price_usd_per_kwh: Changing | None = None
    carbon_gco2e_per_kwh: Changing | None = None
    cap_watts: Changing | None = None

    @field_validator("cap_watts")
    @classmethod
    def _is_a_cap(cls, cap: SeriesText | None) -> SeriesText | None:
        if cap is not None and min(cap.values) <= 0:
            raise ValueError(f"{min(cap.values):g} W is no cap; leave the machines out instead")
        return cap

    def site(self) -> Site:
        """As the engine takes it.

        Raises:
            UsageError: If it is impossible.
        """
        return Site(
            name=self.name,
            pue=self.pue,
            network_s=self.network_s,
            price_usd_per_kwh=_series(self.price_usd_per_kwh),
            carbon_gco2e_per_kwh=_series(self.carbon_gco2e_per_kwh),
            cap_watts=_series(self.cap_watts),
        )


def _series(text: SeriesText | None) -> Series | None:
    return None if text is None else text.series()


class AutoscaleText(Document):
    """How many machines of a pool are on; see docs/simulation.md.

    Attributes:
        min_count: So many always are.
        outstanding_per_machine: Requests outstanding for each machine that is on.
        every_s: Period of the decisions [s].
        provision_s: From the decision until a machine serves [s].
        provision_joules: Energy of that time [J].
        off_watts: Drawn by a machine that is off [W].
    """

    min_count: Annotated[int, Field(ge=1, le=1_000_000)]
    outstanding_per_machine: Annotated[float, Field(gt=0)]
    every_s: Annotated[float, Field(gt=0)]
    provision_s: AtLeastZero
    provision_joules: AtLeastZero
    off_watts: AtLeastZero = 0.0

    @model_validator(mode="after")
    def _decides(self) -> AutoscaleText:
        made(self.autoscale)
        return self

    def autoscale(self) -> Autoscale:
        """As the engine takes it.

        Raises:
            UsageError: If it decides nothing.
        """
        return Autoscale(**self.model_dump())


class TransferText(Document):
    """What it takes to move a request from a prefill to a decode machine.

    Attributes:
        fixed_s: Whatever its size [s].
        s_per_token: For each token of context on top [s].
        joules_per_token: Energy of each token of context [J].
    """

    fixed_s: AtLeastZero
    s_per_token: AtLeastZero
    joules_per_token: AtLeastZero

    def transfer(self) -> Transfer:
        """As the engine takes it."""
        return Transfer(**self.model_dump())


class TraceText(Document):
    """Which requests come.

    Attributes:
        spec: A generator with its options, or a path with what is to be done to it.
        format: What the file is; None: recognised by its columns.
        first: Only so many requests.
        like: So many requests that come like these; every seed draws others.
        rate: Arrivals so many times as fast.
        time: Times and pauses multiplied by this.
    """

    spec: Annotated[str, Field(min_length=1)]
    format: Format | None = None
    first: Requests | None = None
    like: Requests | None = None
    rate: Ratio = 1.0
    time: Ratio = 1.0

    def trace(self, seed: int, folder: Path) -> Trace:
        """The requests under a seed.

        Raises:
            UsageError: If there is no such trace, or it is broken.
        """
        trace = trace_from_spec(self._text(), seed=seed, folder=folder)
        try:
            if self.first is not None:
                trace = first(trace, self.first)
            if self.like is not None:
                trace = like(trace, self.like, seed)
            if (self.rate, self.time) != (1.0, 1.0):
                trace = scaled(trace, rate_ratio=self.rate, time_ratio=self.time)
        except ValueError as error:
            raise UsageError(f"trace {self.spec}: {error}") from error
        return trace

    def _text(self) -> str:
        return self.spec if self.format is None else f"{self.spec},format={self.format}"
