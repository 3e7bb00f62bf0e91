"""The scenario file of the simulator: sites, pools of machines, a trace, policies."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from wattbench import plugins
from wattbench.core.errors import OptionError, UsageError, did_you_mean
from wattbench.core.slo import Objective, parse_slo
from wattbench.documents import Document, find_document, load_document, shipped_names
from wattbench.plugins import parse_options, parse_spec
from wattbench.routing.fleet import Fleet, Pool
from wattbench.routing.layout import PRIORITIES
from wattbench.routing.replay import RouterSettings
from wattbench.simulation.demand import Lengths, lengths_known
from wattbench.simulation.machines import PoolText
from wattbench.simulation.parts import (
    AtLeastZero,
    Name,
    SiteText,
    TraceText,
    TransferText,
    made,
)

FOLDER = "scenarios/simulations"
SITE = "site"
Seed = Annotated[int, Field(ge=0, le=2**31)]
Slo = Annotated[str, Field(min_length=1)]


class ClassText(Document):
    """What a class of the trace is promised.

    Attributes:
        priority: Its queue, 0 the most urgent.
        patience_s: How long its requests wait to be admitted [s]; None: for ever.
        slo: Its service level; None: that of the scenario.
    """

    priority: Annotated[int, Field(ge=0, lt=PRIORITIES)] = 0
    patience_s: AtLeastZero | None = None
    slo: Slo | None = None

    @field_validator("slo")
    @classmethod
    def _parses(cls, slo: str | None) -> str | None:
        return _simulated(slo)


class RouterText(Document):
    """What the router takes and knows; see docs/simulation.md.

    Attributes:
        decision_s: Time of a decision [s].
        decision_joules: Energy of a decision [J].
        site: Where the router stands, for the price and carbon of that energy.
        signals_every_s: Period of the machines' signals [s]; None: an oracle of the moment.
        own_sends: Whether it counts what it has sent since the last signal.
        queue_limit: Outstanding requests from which on a machine takes no more.
        lengths_known: ``exact``, ``mean``, or ``noisy,sigma=…``.
    """

    decision_s: AtLeastZero = 0.0
    decision_joules: AtLeastZero = 0.0
    site: Name | None = None
    signals_every_s: Annotated[float, Field(gt=0)] | None = None
    own_sends: bool | None = None
    queue_limit: Annotated[int, Field(ge=1)] | None = None
    lengths_known: str = "exact"

    @field_validator("lengths_known")
    @classmethod
    def _lengths(cls, text: str) -> str:
        made(lambda: lengths_known(text))
        return text

    @model_validator(mode="after")
    def _all_count(self) -> RouterText:
        if self.own_sends is not None and self.signals_every_s is None:
            raise ValueError("own_sends means nothing without signals_every_s; leave it out")
        if self.site is not None and not self.decision_joules:
            raise ValueError("site means nothing without decision_joules; leave it out")
        return self

    def settings(self) -> RouterSettings:
        """As the engine takes it."""
        return RouterSettings(
            decision_s=self.decision_s,
            decision_joules=self.decision_joules,
            signals_every_s=self.signals_every_s,
            own_sends=self.own_sends is not False,
            queue_limit=self.queue_limit,
        )

    def lengths(self) -> Lengths:
        """What it knows of the answers' lengths."""
        return lengths_known(self.lengths_known)


def _stands_somewhere(pool: PoolText, info: ValidationInfo) -> PoolText:
    names = [site.name for site in info.data.get("sites", ())]
    if pool.site is None and len(names) > 1:
        raise ValueError(f"pool {pool.name} stands nowhere; add site: one of {', '.join(names)}")
    if pool.site is not None and names and pool.site not in names:
        hint = did_you_mean(pool.site, names)
        raise ValueError(f"site {pool.site!r} is none of {', '.join(names)}{hint}")
    return pool


def _fits_the_fleet(text: str, info: ValidationInfo) -> str:
    if {"sites", "transfer", "pools"} <= set(info.data):
        parts = (info.data[key] for key in ("sites", "pools", "transfer"))
        made(lambda: policy(text, _fleet(*parts), 0))
    return text


class Scenario(Document):
    """A fleet, what comes to it, and the policies that are compared.

    Attributes:
        name: What results call it; else the name of the file.
        about: One sentence, or nothing.
        sites: Where machines stand; None: one site, without price or carbon.
        transfer: What it takes to move a request from a prefill to a decode machine.
        pools: The machines.
        policies: How requests are routed, each with its options.
        trace: What comes.
        slo: Service level of every request, such as ``ttft:p95<2s,tpot:p95<50ms``.
        classes: What each class of the trace is promised.
        router: What the router takes and knows.
        horizon_s: Machines idle until then at least [s].
        seeds: How many (from 0 on), or which.
    """

    name: Name
    about: Annotated[str, Field(max_length=400)] = ""
    sites: Annotated[tuple[SiteText, ...], Field(min_length=1, max_length=1000)] = (
        SiteText(name=SITE),
    )
    transfer: TransferText | None = None
    pools: Annotated[
        tuple[Annotated[PoolText, AfterValidator(_stands_somewhere)], ...],
        Field(min_length=1, max_length=1000),
    ]
    router: RouterText = RouterText()
    policies: Annotated[
        tuple[Annotated[str, AfterValidator(_fits_the_fleet)], ...],
        Field(min_length=1, max_length=100),
    ]
    trace: TraceText
    slo: Slo | None = None
    classes: dict[str, ClassText] = Field(default_factory=dict)
    horizon_s: AtLeastZero | None = None
    seeds: (
        Annotated[int, Field(ge=1, le=10_000)] | Annotated[tuple[Seed, ...], Field(min_length=1)]
    ) = 1
    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: object, info: ValidationInfo) -> object:
        stem = (info.context or {}).get("stem")
        if isinstance(data, dict) and stem:
            return {"name": re.sub(r"[^\w.+-]+", "-", stem)[:40]} | data
        return data

    @field_validator("trace", mode="before")
    @classmethod
    def _as_mapping(cls, trace: object) -> object:
        return {"spec": trace} if isinstance(trace, str) else trace

    @field_validator("sites")
    @classmethod
    def _other_names(cls, sites: tuple[SiteText, ...]) -> tuple[SiteText, ...]:
        _once([site.name for site in sites])
        return sites

    @field_validator("pools")
    @classmethod
    def _a_fleet(cls, pools: tuple[PoolText, ...], info: ValidationInfo) -> tuple[PoolText, ...]:
        _once([pool.name for pool in pools])
        if {"sites", "transfer"} <= set(info.data):
            made(lambda: _fleet(info.data["sites"], pools, info.data["transfer"]))
        return pools

    @field_validator("router")
    @classmethod
    def _stands(cls, router: RouterText, info: ValidationInfo) -> RouterText:
        names = [site.name for site in info.data.get("sites", ())]
        if router.site is not None and names and router.site not in names:
            raise ValueError(f"site {router.site!r} is none of {', '.join(names)}")
        return router

    @field_validator("policies", mode="before")
    @classmethod
    def _one_or_more(cls, policies: object) -> object:
        return [policies] if isinstance(policies, str) else policies

    @field_validator("policies")
    @classmethod
    def _other_policies(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        _once(list(texts))
        return texts

    @field_validator("slo")
    @classmethod
    def _parses(cls, slo: str | None) -> str | None:
        return _simulated(slo)

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: int | tuple[int, ...]) -> int | tuple[int, ...]:
        if not isinstance(seeds, int):
            _once([str(seed) for seed in seeds])
        return seeds

    @model_validator(mode="after")
    def _placed(self, info: ValidationInfo) -> Scenario:
        self._folder = Path((info.context or {}).get("folder", ""))
        return self

    @property
    def folder(self) -> Path:
        """What paths in it are relative to."""
        return self._folder

    def fleet(self) -> Fleet:
        """As the engine takes it."""
        return _fleet(self.sites, self.pools, self.transfer)

    def seed_list(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds


def _fleet(
    sites: Sequence[SiteText], pools: Sequence[PoolText], transfer: TransferText | None
) -> Fleet:
    """The fleet.

    Raises:
        UsageError: If a cap cannot be obeyed, or prefill and decode do not go together.
    """
    return Fleet(
        pools=tuple(
            Pool(
                machine=pool.machine,
                count=pool.count,
                site=pool.site or sites[0].name,
                autoscale=None if pool.autoscale is None else pool.autoscale.autoscale(),
                role=pool.role,
            )
            for pool in pools
        ),
        sites=tuple(site.site() for site in sites),
        transfer=None if transfer is None else transfer.transfer(),
    )


def policy(text: str, fleet: Fleet, seed: int) -> Any:
    """A policy with its options, for a fleet.

    Raises:
        UsageError: If there is none, it has no such option, or the fleet is not for it.
    """
    spec = parse_spec(text)
    found = plugins.find("policies", spec.name)
    why = found.availability()
    if why is not None:
        raise UsageError(f"policy {spec.name} cannot work here: {why}")
    return found(parse_options(spec, found.Options), fleet, seed)


def objectives(slo: str | None) -> tuple[Objective, ...]:
    """Limits of a service level; none of an unknown one."""
    return () if slo is None else parse_slo(slo)


def _simulated(slo: str | None) -> str | None:
    for each in made(lambda: objectives(slo)):
        if each.latency == "itl_s":
            raise ValueError("itl is not simulated: steps are skipped; write tpot")
    return slo


def _once(names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} stands there twice")


def load_scenario(name_or_path: str, changes: Mapping[str, Any] | None = None) -> Scenario:
    """A shipped scenario by name, or any by path.

    Args:
        name_or_path: Which.
        changes: Values in place of those of the file, by dotted key; a list's entry by its name
            or place, such as ``pools.gpu.count``.

    Raises:
        DocumentError: If there is none, or it is wrong.
        UsageError: If there is no place for a change.
    """
    path = find_document(FOLDER, name_or_path, "simulation")
    return load_document(path, Scenario, _editor(changes or {}))


def scenario_text(name_or_path: str) -> str:
    """The scenario's file as it is written.

    Raises:
        DocumentError: If there is none.
    """
    return find_document(FOLDER, name_or_path, "simulation").read_text(encoding="utf-8")


def scenario_names() -> list[str]:
    """Names of the shipped scenarios."""
    return shipped_names(FOLDER)


def _editor(changes: Mapping[str, Any]) -> Callable[[dict[str, Any]], None]:
    def edit(data: dict[str, Any]) -> None:
        for key, value in changes.items():
            _put(data, key, value)

    return edit


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    if key.startswith("trace.") and isinstance(data.get("trace"), str):
        data["trace"] = {"spec": data["trace"]}
    place: Any = data
    *outer, last = key.split(".")
    for part in outer:
        place = _entry(place, part, key)
    if isinstance(place, list):
        place[_index(place, last, key)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise OptionError(f"{key}: {'.'.join(outer)} is a plain value and has no {last!r}")


def _entry(place: Any, part: str, key: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, part, key)]
    if isinstance(place, dict):
        return place.setdefault(part, {})
    raise OptionError(f"{key}: there is no {part!r} in a plain value")


def _index(place: list[Any], part: str, key: str) -> int:
    names = [each.get("name") if isinstance(each, dict) else None for each in place]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(place):
        return int(part)
    known = [str(name) if name else str(index) for index, name in enumerate(names)]
    hint = did_you_mean(part, known)
    raise OptionError(f"{key}: there is no {part!r}{hint} (there are {', '.join(known)})")
