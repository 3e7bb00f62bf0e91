"""Machines, pools and sites: what a trace is routed over."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from wattbench.core.errors import UsageError
from wattbench.routing.peak import dearest_watts
from wattbench.routing.step import StepModel

KvRule = Literal["prompt", "whole"]
Role = Literal["both", "prefill", "decode"]
MAX_TOKENS = 2**30
"""No context is longer, no batch holds more; the engine counts in 32 and 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One kind of machine serving one model: a replica, as many devices as that takes.

    Attributes:
        name: What tables call it.
        model: The model it serves.
        step: Time and energy of its steps.
        max_batch: Most requests at once, those with a prompt under way included.
        max_step_tokens: Most tokens computed in a step, above ``max_batch`` [tokens].
        kv_capacity_tokens: Context held at once, over all requests [tokens].
        kv_request_tokens: Charged for each request on top, half a block of paged memory [tokens].
        prefix_cache_tokens: Of prompts computed, kept beside that memory to be used again, in
            whole blocks of the trace [tokens]; 0: none.
        kv_rule: ``prompt``: memory grows with the answer and runs out by preemption; ``whole``:
            prompt and answer are reserved on admission.
        idle_watts: Drawn with nothing to do [W].
        sleep_watts: Drawn asleep [W].
        sleep_after_s: Idle time before it sleeps [s]; infinite: never.
        wake_s: From the request that wakes it to its first step [s].
        wake_joules: Energy of that time [J].
        cap_watts: Power cap of its own [W]; infinite: none.
        device_count: Devices of the replica.
    """

    name: str
    model: str = ""
    step: StepModel
    max_batch: int
    max_step_tokens: int
    kv_capacity_tokens: int
    kv_request_tokens: int = 0
    prefix_cache_tokens: int = 0
    kv_rule: KvRule = "prompt"
    idle_watts: float
    sleep_watts: float = 0.0
    sleep_after_s: float = math.inf
    wake_s: float = 0.0
    wake_joules: float = 0.0
    cap_watts: float = math.inf
    device_count: int = 1

    def __post_init__(self) -> None:
        """Refuse what no machine is, with the attribute and its value."""
        for name in ("max_batch", "max_step_tokens", "kv_capacity_tokens", "device_count"):
            if not 1 <= getattr(self, name) <= MAX_TOKENS:
                raise UsageError(
                    f"{self.name}: {name} is {getattr(self, name)}; it must be from 1 to 2^30"
                )
        if not 0 <= self.prefix_cache_tokens <= MAX_TOKENS:
            raise UsageError(
                f"{self.name}: prefix_cache_tokens is {self.prefix_cache_tokens}; it must be from "
                f"0 to 2^30"
            )
        if self.max_step_tokens <= self.max_batch:
            raise UsageError(
                f"{self.name}: max_step_tokens {self.max_step_tokens} must be above max_batch "
                f"{self.max_batch}: each decoding request takes one, and a prompt at least one"
            )
        for name in ("idle_watts", "sleep_watts", "wake_s", "wake_joules", "kv_request_tokens"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise UsageError(
                    f"{self.name}: {name} is {getattr(self, name):g}; 0 or more is due"
                )
        if not self.sleep_after_s >= 0:
            raise UsageError(f"{self.name}: sleep_after_s is {self.sleep_after_s:g}, below 0")
        self.check_cap(self.cap_watts, "cap_watts")

    def check_cap(self, cap_watts: float, what: str) -> None:
        """Refuse a cap that the machine cannot obey.

        Raises:
            UsageError: If the cap is not above what the machine draws busy or idle [W].
        """
        least_watts = max(self.idle_watts, self.step.busy_watts)
        if not cap_watts > least_watts:
            raise UsageError(
                f"{self.name}: {what} of {cap_watts:g} W is not above the {least_watts:g} W that "
                f"it draws idle or busy with nothing; raise the cap, or leave machines out"
            )

    def holds(self, context_tokens: int) -> bool:
        """Whether a request of so many tokens, prompt and answer, can ever be held."""
        return context_tokens + self.kv_request_tokens <= self.kv_capacity_tokens

    @property
    def peak_watts(self) -> float:
        """What no step of it draws more than: the dearest of all lanes and sizes (`peak`) [W]."""
        limits = (self.max_batch, self.max_step_tokens, self.kv_capacity_tokens)
        watts = dearest_watts(self.step, limits)
        return min(max(watts, self.idle_watts), self.cap_watts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A value that is constant between instants.

    Attributes:
        at_s: Instants, the first one 0, rising [s].
        values: From each instant on; in the unit of what holds the series.
    """

    at_s: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse a series with holes."""
        if not self.at_s or len(self.at_s) != len(self.values):
            raise UsageError(
                f"a series of {len(self.at_s)} instants and {len(self.values)} values; "
                f"give one value for each instant, at least one"
            )
        if self.at_s[0] != 0:
            raise UsageError(f"a series starts at {self.at_s[0]:g} s; its first instant must be 0")
        for earlier, later in zip(self.at_s, self.at_s[1:], strict=False):
            if not earlier < later < math.inf:
                raise UsageError(f"a series goes from {earlier:g} s to {later:g} s; it must rise")
        for value in self.values:
            if not value >= 0:
                raise UsageError(f"a series holds {value:g}; it must be 0 or more")

    def at(self, time_s: float) -> float:
        """The value in force at an instant [s]."""
        return [v for t, v in zip(self.at_s, self.values, strict=True) if t <= time_s][-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where machines stand.

    Attributes:
        name: What tables call it.
        pue: Energy at the site's meter over that of its machines.
        network_s: From the router to its machines [s].
        cap_watts: Power cap over all its machines together [W]; None: none.
        price_usd_per_kwh: None: unknown, so is the cost.
        carbon_gco2e_per_kwh: None: unknown, so are the emissions.
    """

    name: str
    pue: float = 1.0
    network_s: float = 0.0
    cap_watts: Series | None = None
    price_usd_per_kwh: Series | None = None
    carbon_gco2e_per_kwh: Series | None = None

    def __post_init__(self) -> None:
        """Refuse an impossible site."""
        if not 1.0 <= self.pue < math.inf:
            raise UsageError(f"site {self.name}: pue is {self.pue:g}; it must be 1 or more")
        if not 0 <= self.network_s < math.inf:
            raise UsageError(f"site {self.name}: network_s is {self.network_s:g}; 0 or more is due")


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscale:
    """How many machines of a pool are on, by what they have to do; see docs/simulator.md.

    Attributes:
        min_count: So many are always on, and are at time 0.
        outstanding_per_machine: Requests outstanding for each machine that is on.
        every_s: Period of the decisions [s].
        provision_s: From the decision until a machine is routable [s].
        provision_joules: Energy of that time [J].
        off_watts: Drawn by a machine that is off [W].
    """

    min_count: int
    outstanding_per_machine: float
    every_s: float
    provision_s: float
    provision_joules: float
    off_watts: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what decides nothing."""
        if self.min_count < 1:
            raise UsageError(
                f"autoscale: min_count is {self.min_count}; 1 or more is due, so that there is "
                f"always a machine to send a request to"
            )
        for name in ("outstanding_per_machine", "every_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"autoscale: {name} is {getattr(self, name):g}; give one above 0")
        for name in ("provision_s", "provision_joules", "off_watts"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"autoscale: {name} is {getattr(self, name):g}; 0 or more is due")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Machines of one kind at one site.

    Attributes:
        machine: The kind.
        count: How many, the most that can be on.
        site: Where.
        autoscale: How many are on; None: all of them, always.
        role: ``prefill``: up to the first token; ``decode``: from there on; ``both``.
    """

    machine: Machine
    count: int
    site: str
    autoscale: Autoscale | None = None
    role: Role = "both"

    def __post_init__(self) -> None:
        """Refuse an empty pool."""
        if not 1 <= self.count <= 1_000_000:
            raise UsageError(
                f"pool of {self.machine.name}: count is {self.count}; give 1 machine or more"
            )
        if self.autoscale is not None and self.autoscale.min_count > self.count:
            raise UsageError(
                f"pool of {self.machine.name}: autoscale min_count {self.autoscale.min_count} is "
                f"above the pool's count of {self.count}; count is the most that can be on"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What it takes to move a request's KV memory from a prefill to a decode machine.

    Attributes:
        fixed_s: Whatever its size [s].
        s_per_token: For each token of context on top [s].
        joules_per_token: Energy of each token of context [J].
    """

    fixed_s: float
    s_per_token: float
    joules_per_token: float

    def __post_init__(self) -> None:
        """Refuse what no transfer is."""
        for name in ("fixed_s", "s_per_token", "joules_per_token"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"transfer: {name} is {getattr(self, name):g}; 0 or more is due")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Pools at sites. Machines are numbered through the pools, in their order.

    Attributes:
        pools: The machines.
        sites: Where they stand.
        transfer: What moves between prefill and decode machines; None: nothing does.
    """

    pools: tuple[Pool, ...]
    sites: tuple[Site, ...] = field(default_factory=lambda: (Site(name="site"),))
    transfer: Transfer | None = None

    def __post_init__(self) -> None:
        """Refuse a fleet without machines, or a pool at a site that is not there."""
        if not self.pools:
            raise UsageError("the fleet has no machines; give it a pool with a count of 1 or more")
        names = [site.name for site in self.sites]
        for pool in self.pools:
            if pool.site not in names:
                raise UsageError(
                    f"pool of {pool.machine.name}: unknown site {pool.site!r} (sites: "
                    f"{', '.join(names)})"
                )
        for site in self.sites:
            self._check_cap(site)
        self._check_roles()

    @property
    def count(self) -> int:
        """Machines, over all pools."""
        return sum(pool.count for pool in self.pools)

    def pools_at(self, site: Site) -> Iterator[Pool]:
        """The pools that stand at a site."""
        return (pool for pool in self.pools if pool.site == site.name)

    def share_watts(self, site: Site, machine: Machine, site_cap_watts: float) -> float:
        """A machine's part of its site's cap, in proportion to its peak power [W]."""
        peak_watts = sum(pool.count * pool.machine.peak_watts for pool in self.pools_at(site))
        return site_cap_watts * machine.peak_watts / peak_watts

    def _check_roles(self) -> None:
        of_role = {pool.role: pool.machine.name for pool in reversed(self.pools)}
        for role, other in (("prefill", "decode"), ("decode", "prefill")):
            if role in of_role and other not in of_role:
                raise UsageError(
                    f"pool of {of_role[role]} has role {role}, but no pool has role {other}; "
                    f"add one, or leave the role out"
                )
        if "prefill" in of_role and self.transfer is None:
            raise UsageError(
                f"pool of {of_role['prefill']} has role prefill, but transfer is missing: what "
                f"does it take to move a request to a decode machine?"
            )
        if "prefill" not in of_role and self.transfer is not None:
            raise UsageError("transfer means nothing without a pool of role prefill; leave it out")

    def _check_cap(self, site: Site) -> None:
        if site.cap_watts is None:
            return
        lowest_watts = min(site.cap_watts.values)
        for pool in self.pools_at(site):
            share_watts = self.share_watts(site, pool.machine, lowest_watts)
            pool.machine.check_cap(
                share_watts, f"its share of the {lowest_watts:g} W cap of site {site.name},"
            )
