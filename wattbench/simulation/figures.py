"""Figures of one replay: of its requests where it ran, of its machines after a common horizon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wattbench.core.slo import Objective
from wattbench.routing.fleet import Fleet, Series, Site
from wattbench.routing.layout import CANCELLED, REFUSED, SERVED
from wattbench.routing.replay import Replay
from wattbench.routing.world import JOULES_PER_KWH
from wattbench.simulation.plan import Plan

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
LATENCIES = ("ttft_s", "tpot_s", "e2e_s", "queue_wait_s")
STATUS = {SERVED: "served", CANCELLED: "cancelled", REFUSED: "refused"}
PARTS = ("prefill", "decode", "overhead", "idle", "sleep", "wake", "off", "transfer")
NO_SLO = "no service level is stated (slo:)"
NONE_SERVED = "no request was served"
ONLY_FIRST = "no answer had a second token"
NO_PREFIXES = (
    "no prefix is kept: no pool has prefix_cache_tokens for a block, or the trace tells no blocks"
)
NO_TRANSFER = "no caches move between machines, and what the network draws is not known"
Figures = dict[str, Any]
"""Numbers by their dotted names, in the unit of each name; None: see `reason_of`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Instants and latencies of requests as arrays (n,); NaN where there is none.

    ``arrival_s`` is when a request really arrived: a later turn comes after the answer before it.
    """

    arrival_s: Any
    ttft_s: Any
    tpot_s: Any
    e2e_s: Any
    queue_wait_s: Any


def times_of(run: Replay) -> Times:
    """Latencies of a replay, from each request's arrival at the router."""
    requests = run.world.requests
    arrival_s = arrivals(run)
    served = requests["status"] == SERVED
    first_s = np.where(served, requests["first_s"], np.nan)
    finish_s = np.where(served, requests["finish_s"], np.nan)
    gaps = np.where(requests["output"] > 1, requests["output"] - 1, np.nan)
    return Times(
        arrival_s=arrival_s,
        ttft_s=first_s - arrival_s,
        tpot_s=(finish_s - first_s) / gaps,
        e2e_s=finish_s - arrival_s,
        queue_wait_s=run.queue_waits_s(),
    )


def arrivals(run: Replay) -> Any:
    """When requests arrived; NaN for turns that never came [s]."""
    if run.demand.parent is None:
        return np.asarray(run.demand.arrival_s)
    requests, machines = run.world.requests, run.world.machines
    came = requests["machine"] >= 0
    delays_s = np.array([run.settings.decision_s + site.network_s for site in run.fleet.sites])
    sent = came & (requests["status"] != REFUSED)
    first, reach_s = requests["machine"], requests["reach_s"]
    if run.fleet.transfer is not None:
        moved = run.world.legs["machine"] >= 0
        first = np.where(moved, run.world.legs["machine"], first)
        reach_s = np.where(moved, run.world.legs["reach_s"], reach_s)
    way_s = np.where(sent, delays_s[machines["site"][first]], 0.0)
    later_s = np.where(came, reach_s - way_s, np.nan)
    return np.where(run.demand.parent < 0, run.demand.arrival_s, later_s)


def request_figures(run: Replay, plan: Plan, slo_class: Any) -> Figures:
    """Counts, latencies and service level of a replay."""
    requests, times = run.world.requests, times_of(run)
    served = requests["status"] == SERVED
    found: Figures = {"requests.arrived": float(len(requests))}
    for code, name in STATUS.items():
        found[f"requests.{name}"] = float((requests["status"] == code).sum())
    found["requests.preempted"] = float((requests["preempted"] > 0).sum())
    found["input_tokens"] = float(requests["input"][served].sum(dtype=np.int64))
    hits, read = run.hit_tokens, found["input_tokens"]
    known = hits is not None and read
    found["prefix_hit_fraction"] = float(hits[served].sum(dtype=np.int64)) / read if known else None
    found["output_tokens"] = float(requests["output"][served].sum(dtype=np.int64))
    for name in LATENCIES:
        known = getattr(times, name)
        known = known[~np.isnan(known)]
        for label, fraction in QUANTILES.items():
            key = f"{name}.{label}"
            found[key] = float(np.quantile(known, fraction)) if len(known) else None
    good = _good(times, served, plan, slo_class)
    found["slo_attainment_fraction"] = None if good is None else float(good.mean())
    found |= _by_pool(run, served)
    return found | _routed(run, plan, times)


def _good(times: Times, served: Any, plan: Plan, slo_class: Any) -> Any:
    """Which requests were served within every limit of their class; None: nothing is promised."""
    groups: list[tuple[Any, Sequence[Objective]]] = [(slice(None), plan.objectives)]
    if plan.promises:
        of_class = [
            plan.promises[name].objectives if name in plan.promises else plan.objectives
            for name in plan.class_names
        ]
        groups = [(slo_class == number, each) for number, each in enumerate(of_class)]
    if not all(each for _, each in groups):
        return None
    good = served.copy()
    for mask, limits in groups:
        for each in limits:
            within = ~(getattr(times, each.latency)[mask] >= each.limit_s)  # NaN: one token
            good[mask] &= within
    return good


def _by_pool(run: Replay, served: Any) -> Figures:
    requests, machines = run.world.requests, run.world.machines
    kinds = machines["kind"][requests["machine"][served]]
    tokens = np.bincount(kinds, requests["output"][served], len(run.fleet.pools))
    counts = np.bincount(kinds, minlength=len(run.fleet.pools))
    found: Figures = {}
    for pool, count, output in zip(run.fleet.pools, counts, tokens, strict=True):
        found[f"pools.{pool.machine.name}.served"] = float(count)
        found[f"pools.{pool.machine.name}.output_tokens"] = float(output)
    return found


def _routed(run: Replay, plan: Plan, times: Times) -> Figures:
    """Energy of the router's decisions, priced when each was taken."""
    joules = plan.settings.decision_joules
    at_s = times.arrival_s[~np.isnan(times.arrival_s)]
    site = plan.router_site
    found: Figures = {"router.joules": joules * len(at_s)}
    for key, series in (
        ("router.usd", site.price_usd_per_kwh),
        ("router.gco2e", site.carbon_gco2e_per_kwh),
    ):
        if not joules:
            found[key] = 0.0
        else:
            found[key] = None if series is None else _priced(at_s, joules * site.pue, series)
    return found


def _priced(at_s: Any, joules: float, series: Series) -> float:
    places = np.searchsorted(series.at_s, at_s, side="right") - 1
    return float(np.asarray(series.values)[places].sum()) * joules / JOULES_PER_KWH


def machine_parts(run: Replay) -> dict[str, Any]:
    """Energy of each machine by its parts, as arrays (m,) [J]; no transfer where nothing moves."""
    machines, kinds = run.world.machines, run.world.kinds
    busy = kinds["busy_watts"][machines["kind"]] * machines["busy_s"]
    left_out = {"overhead"} if run.fleet.transfer is not None else {"overhead", "transfer"}
    parts = {name: machines[name] for name in PARTS if name not in left_out}
    return {**parts, "overhead": machines["fixed"] + busy}


def energy_figures(run: Replay, plan: Plan, found: Figures, horizon_s: float) -> Figures:
    """Energy, cost and emissions of a replay that was closed at the horizon, with all ratios."""
    parts = machine_parts(run)
    machines = run.world.machines
    each = sum(parts.values())
    pue = np.array([site.pue for site in run.fleet.sites])[machines["site"]]
    router_joules = found["router.joules"] or 0.0
    total = float(each.sum()) + router_joules
    facility = float((each * pue).sum()) + router_joules * plan.router_site.pue
    figures: Figures = {"energy_joules": total, "facility_energy_joules": facility}
    names = {"overhead": "batching_overhead"}
    for name in PARTS:
        key = f"energy_breakdown_joules.{names.get(name, name)}"
        figures[key] = float(parts[name].sum()) if name in parts else None
    figures["energy_breakdown_joules.router"] = router_joules
    for name, money, series in (
        ("cost_usd", "usd", "price_usd_per_kwh"),
        ("emissions_gco2e", "gco2e", "carbon_gco2e_per_kwh"),
    ):
        routed = found[f"router.{money}"]
        known = routed is not None and not unpriced(run.fleet, series)
        figures[name] = float(machines[money].sum()) + (routed or 0.0) if known else None
    served, tokens = found["requests.served"] or 0.0, found["output_tokens"] or 0.0
    figures["energy_per_output_token_joules"] = total / tokens if tokens else None
    figures["energy_per_request_joules"] = total / served if served else None
    figures["tokens_per_joule"] = tokens / total if total and served else None
    for number, pool in enumerate(run.fleet.pools):
        of_pool = machines["kind"] == number
        key = f"pools.{pool.machine.name}"
        figures[f"{key}.energy_joules"] = float(each[of_pool].sum())
        busy_s = float(machines["busy_s"][of_pool].sum())
        figures[f"{key}.busy_fraction"] = busy_s / (pool.count * horizon_s)
    kept = {key: value for key, value in found.items() if not key.startswith("router.")}
    return figures | kept


def unpriced(fleet: Fleet, series: str) -> list[Site]:
    """Sites with machines of which a series is not known."""
    return [
        site
        for site in fleet.sites
        if getattr(site, series) is None and any(True for _ in fleet.pools_at(site))
    ]


def reason_of(name: str, plan: Plan) -> str:
    """Why a figure is not known."""
    if name.endswith(".transfer"):
        return NO_TRANSFER
    if name == "prefix_hit_fraction":
        return NO_PREFIXES
    if name == "slo_attainment_fraction":
        return NO_SLO
    series = {"cost_usd": "price_usd_per_kwh", "emissions_gco2e": "carbon_gco2e_per_kwh"}.get(name)
    if series is not None:
        sites = [*unpriced(plan.fleet, series), plan.router_site]
        return f"site {sites[0].name} has no {series}"
    return ONLY_FIRST if name.startswith("tpot_s") else NONE_SERVED


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as objects within objects."""
    found: dict[str, Any] = {}
    for key, value in flat.items():
        *outer, last = key.split(".")
        place = found
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = value
    return found
