"""Routing policies: what a plug-in is, and the built-in ones.

A policy is a class under the entry-point group ``wattbench.policies`` with a frozen ``Options``
class, a constructor ``(options, fleet, seed)`` and

    choose(view, arrival) -> int      the machine's number

The built-ins have a ``code`` instead, by which the compiled router knows them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wattbench.core.errors import UsageError
from wattbench.plugins import option
from wattbench.routing import choice
from wattbench.routing.fleet import Fleet
from wattbench.routing.layout import DECODE, ON, PREFILL, World

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What the router knows of a request; its answer's length is a guess."""

    number: int
    arrival_s: float
    input_tokens: int
    guess_tokens: int
    moved: bool = False
    """Whether it has its first token already, and is for a decode machine."""


class FleetView:
    """What the router may see of the machines, as arrays (m,): their state at ``signals_s``.

    Args:
        world: The machines and requests.
        seen: Records of the machines, as of the last look.
    """

    def __init__(self, world: World, seen: Any) -> None:
        self._world, self._seen = world, seen

    def candidates(self, arrival: Arrival) -> NDArray[np.bool_]:
        """The machines that are on now, of the right role, and can ever hold the request (m,)."""
        world, q = self._world, self._world.requests[arrival.number]
        kinds = world.kinds
        need = q["input"] + np.where(kinds["role"] == PREFILL, 1, q["output"])
        fits = (need + kinds["charge"] <= kinds["capacity"]) & (
            (kinds["role"] == DECODE) == arrival.moved
        )
        return np.asarray(fits[world.machines["kind"]] & (world.machines["power"] == ON))

    @property
    def outstanding(self) -> IntArray:
        """Requests sent and not yet gone: waiting and running."""
        return np.asarray(self._seen["outstanding"])

    @property
    def waiting(self) -> IntArray:
        """Requests that no step has taken up yet."""
        return np.asarray(self._seen["waiting"])

    @property
    def outstanding_tokens(self) -> IntArray:
        """Prompts and guessed answers of the outstanding requests [tokens]."""
        return np.asarray(self._seen["load"])

    def idle_s(self, now_s: float) -> NDArray[np.float64]:
        """For how long each machine has had nothing to do; 0 where it has [s]."""
        return np.where(self.outstanding == 0, now_s - self._seen["now_s"], 0.0)


@runtime_checkable
class RoutingPolicy(Protocol):
    """A policy in Python; slower than a built-in one, with the same results."""

    def choose(self, view: FleetView, arrival: Arrival) -> int:
        """The number of the machine that is to serve an arrival."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NoOptions:
    """A policy without options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardOptions:
    """Options of the policies that seek the least energy, cost or carbon."""

    ttft_s: float = option(2.0, "machines with a longer expected TTFT come last [s]")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackOptions:
    """Options of ``consolidate``."""

    fill: float = option(0.5, "most of a machine's places that are filled before the next one's")

    def __post_init__(self) -> None:
        """A share is a share."""
        if not 0 < self.fill <= 1:
            raise UsageError(f"fill={self.fill:g} must be above 0 and at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdOptions:
    """Options of ``threshold``."""

    input: int = option(32, "longest prompt that counts as short [tokens]")
    output: int = option(32, "longest expected answer that counts as short [tokens]")
    short: int = option(0, "pool for short requests, by its place in the fleet, from 0")
    long: int = option(1, "pool for all others")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixOptions:
    """Options of ``prefix_affinity``."""

    spread: int = option(8, "requests above the least loaded machine from which on it goes there")

    def __post_init__(self) -> None:
        """Nobody has fewer than the least."""
        if self.spread < 0:
            raise UsageError(f"spread={self.spread} must be 0 or more")


class BuiltIn:
    """A policy that the compiled router knows by ``code``."""

    Options: ClassVar[type[Any]] = NoOptions
    code: ClassVar[int]
    looks: ClassVar[bool] = True
    """Whether it looks at the machines; those that do not can be dealt out beforehand."""

    def __init__(self, options: Any, fleet: Fleet, seed: int) -> None:
        self.options, self.fleet, self.seed = options, fleet, seed

    @staticmethod
    def availability() -> str | None:
        """Always usable."""
        return None

    def dials(self) -> tuple[float, ...]:
        """The policy's own numbers, in the order that its code takes them."""
        return ()


class RoundRobin(BuiltIn):
    """Each machine in turn."""

    code, looks = choice.ROUND_ROBIN, False


class Random(BuiltIn):
    """Any machine, with equal chances."""

    code, looks = choice.RANDOM, False


class LeastOutstanding(BuiltIn):
    """The machine with the fewest requests sent and not yet answered, waiting and running."""

    code = choice.LEAST_OUTSTANDING


class PowerOfTwo(BuiltIn):
    """Of two machines at random the one with fewer outstanding requests."""

    code = choice.POWER_OF_TWO


class TokenJsq(BuiltIn):
    """The machine with the fewest outstanding tokens, prompts and expected answers."""

    code = choice.TOKEN_JSQ


class AlwaysBusiest(BuiltIn):
    """The machine with the most outstanding requests: the policy that must lose."""

    code = choice.BUSIEST


class PrefixAffinity(BuiltIn):
    """The machine that keeps most of the prompt, while it is not much busier than others."""

    Options = PrefixOptions
    code = choice.PREFIX_AFFINITY

    def dials(self) -> tuple[float, ...]:
        """How much busier."""
        return (float(self.options.spread),)


class PredictedLatency(BuiltIn):
    """The machine with the shortest expected end-to-end latency."""

    code = choice.PREDICTED_LATENCY


class _Guarded(BuiltIn):
    Options = GuardOptions

    def dials(self) -> tuple[float, ...]:
        """The guard."""
        return (float(self.options.ttft_s),)


class MarginalEnergy(_Guarded):
    """The machine on which the request adds the fewest joules, its expected TTFT in bounds."""

    code = choice.MARGINAL_ENERGY


class Cost(_Guarded):
    """The machine on which the request adds the least to the bill for electricity."""

    code = choice.COST

    def __init__(self, options: Any, fleet: Fleet, seed: int) -> None:
        super().__init__(options, fleet, seed)
        _need(fleet, "price_usd_per_kwh", "cost")


class CarbonAware(_Guarded):
    """The machine on which the request adds the fewest grams of CO2e."""

    code = choice.CARBON

    def __init__(self, options: Any, fleet: Fleet, seed: int) -> None:
        super().__init__(options, fleet, seed)
        _need(fleet, "carbon_gco2e_per_kwh", "carbon")


class PowerCapped(BuiltIn):
    """The machine that would use the least of the room under its power cap."""

    code = choice.POWER_CAPPED


class Consolidate(BuiltIn):
    """The fullest machine with room left, so that the others may sleep."""

    Options = PackOptions
    code = choice.CONSOLIDATE

    def dials(self) -> tuple[float, ...]:
        """The share of places that is filled."""
        return (float(self.options.fill),)


class Threshold(BuiltIn):
    """Short requests to one pool, long ones to another (Wilkins et al., HotCarbon 2024)."""

    Options = ThresholdOptions
    code = choice.THRESHOLD

    def __init__(self, options: Any, fleet: Fleet, seed: int) -> None:
        super().__init__(options, fleet, seed)
        for name in ("short", "long"):
            if not 0 <= getattr(options, name) < len(fleet.pools):
                raise UsageError(
                    f"policy threshold: {name}={getattr(options, name)}, but the fleet has "
                    f"{len(fleet.pools)} pools, numbered from 0"
                )

    def dials(self) -> tuple[float, ...]:
        """The two lengths and the two pools."""
        each = self.options
        return (float(each.input), float(each.output), float(each.short), float(each.long))


def _need(fleet: Fleet, series: str, policy: str) -> None:
    for site in fleet.sites:
        values = getattr(site, series)
        if values is None or not all(math.isfinite(value) for value in values.values):
            raise UsageError(
                f"policy {policy} needs {series} at every site; site {site.name} has none"
            )
