"""A simulation as pandas data frames, from Python: `wattbench.simulate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wattbench.core.errors import UsageError
from wattbench.routing.fleet import Fleet
from wattbench.simulation.figures import STATUS, machine_parts, reason_of
from wattbench.simulation.plan import Plan, plan_of
from wattbench.simulation.results import over_seeds
from wattbench.simulation.run import Outcome, Played, play
from wattbench.simulation.scenario import Scenario, load_scenario
from wattbench.traces import Trace, trace_from_spec


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationFrames:
    """What came of a simulation.

    Attributes:
        requests: A row per request, policy and seed: when it arrived and was answered, where, and
            its latencies [s].
        machines: A row per machine, policy and seed: its energy by parts up to the horizon [J].
        policies: A row per policy: each figure, over seeds, with ``_low`` and ``_high``.
    """

    requests: pd.DataFrame
    machines: pd.DataFrame
    policies: pd.DataFrame


def simulate(
    fleet_or_scenario: Fleet | Scenario | str | Path,
    trace: Trace | str | Path | None = None,
    policy: str | Sequence[str] | None = None,
    seed: int | Sequence[int] = 0,
    workers: int | None = None,
) -> SimulationFrames:
    """Replay requests through a fleet of machines.

    Args:
        fleet_or_scenario: A ``wattbench.routing.fleet.Fleet``, or a scenario: its name or path.
        trace: Requests, a path, or a generator with options; None: those of the scenario.
        policy: One or more policies with their options; None: those of the scenario.
        seed: One or more.
        workers: Processes; None: as many as are worth it.

    Raises:
        UsageError: If something is missing or cannot be meant.
    """
    plan = _plan(fleet_or_scenario)
    if trace is not None:
        plan = replace(plan, traces=_traces(trace))
    if policy is not None:
        plan = replace(plan, policies=(policy,) if isinstance(policy, str) else tuple(policy))
    plan = replace(plan, seeds=(seed,) if isinstance(seed, int) else tuple(seed))
    return frames_of(play(plan, workers=workers, keep_requests=True))


def _plan(given: Fleet | Scenario | str | Path) -> Plan:
    if isinstance(given, Fleet):
        return Plan(
            name="fleet",
            fleet=given,
            traces=_missing,
            policies=("least_outstanding",),
            router_site=given.sites[0],
        )
    return plan_of(given if isinstance(given, Scenario) else load_scenario(str(given)))


def _missing(_seed: int) -> Trace:
    raise UsageError("a fleet needs a trace, such as 'poisson,rate=5,input=1000,output=200'")


def _traces(trace: Trace | str | Path) -> Any:
    if isinstance(trace, Trace):
        return lambda _seed: trace
    return lambda seed: trace_from_spec(str(trace), seed=seed)


def frames_of(outcome: Outcome) -> SimulationFrames:
    """The frames of replays whose requests were kept."""
    requests = [requests_of(each) for each in outcome.played]
    machines = [_machines(each) for each in outcome.played]
    return SimulationFrames(
        requests=pd.concat(requests, ignore_index=True),
        machines=pd.concat(machines, ignore_index=True),
        policies=_policies(outcome),
    )


def requests_of(played: Played) -> pd.DataFrame:
    """The requests of a replay, in order of the trace."""
    world, times = played.run.world, played.times
    assert times is not None, "its requests were not kept"
    requests = world.requests
    placed = requests["machine"] >= 0
    kinds = world.machines["kind"][requests["machine"]]
    names = np.array([pool.machine.name for pool in played.run.fleet.pools])
    numbers = pd.array(requests["machine"], dtype="Int64")
    numbers[~placed] = pd.NA
    frame = pd.DataFrame(
        {
            "policy": played.policy,
            "seed": played.seed,
            "request": np.arange(len(requests)),
            "status": pd.Series(requests["status"]).map(STATUS),
            "pool": np.where(placed, names[kinds], ""),
            "machine": numbers,
            "arrival_s": times.arrival_s,
            "first_token_s": requests["first_s"],
            "finish_s": requests["finish_s"],
            "ttft_s": times.ttft_s,
            "tpot_s": times.tpot_s,
            "e2e_s": times.e2e_s,
            "queue_wait_s": times.queue_wait_s,
            "input_tokens": requests["input"],
            "output_tokens": requests["output"],
            "priority": requests["priority"],
            "preempted_count": requests["preempted"],
        }
    )
    if played.run.fleet.transfer is not None:
        first = np.where(world.legs["machine"] >= 0, world.legs["machine"], requests["machine"])
        known = np.where(placed, names[world.machines["kind"][first]], "")
        frame.insert(frame.columns.get_loc("pool"), "first_token_pool", known)  # type: ignore[arg-type]
    return frame


def _machines(played: Played) -> pd.DataFrame:
    machines, fleet = played.run.world.machines, played.run.fleet
    names = np.array([pool.machine.name for pool in fleet.pools])
    sites = np.array([site.name for site in fleet.sites])
    parts = machine_parts(played.run)
    frame = {
        "policy": played.policy,
        "seed": played.seed,
        "machine": np.arange(len(machines)),
        "pool": names[machines["kind"]],
        "site": sites[machines["site"]],
        "steps_count": machines["steps"],
        "busy_s": machines["busy_s"],
        "energy_joules": sum(parts.values()),
    }
    frame |= {f"{name}_joules": values for name, values in parts.items()}
    for column, series, money in (
        ("cost_usd", "price_usd_per_kwh", "usd"),
        ("emissions_gco2e", "carbon_gco2e_per_kwh", "gco2e"),
    ):
        known = np.array([getattr(site, series) is not None for site in fleet.sites])
        frame[column] = np.where(known[machines["site"]], machines[money], np.nan)
    return pd.DataFrame(frame)


def _policies(outcome: Outcome) -> pd.DataFrame:
    rows = []
    for text in outcome.plan.policies:
        played = [each for each in outcome.played if each.policy == text]
        row: dict[str, Any] = {"policy": text, "seeds_count": len(played)}
        for name in played[0].figures:
            values = [each.figures[name] for each in played]
            estimate = over_seeds(values, reason_of(name, outcome.plan))
            column = name.replace(".", "_")
            row[column] = estimate.value
            row[f"{column}_low"], row[f"{column}_high"] = estimate.low, estimate.high
        rows.append(row)
    frame = pd.DataFrame(rows)
    numbers = [column for column in frame.columns if column != "policy"]
    return frame.astype(dict.fromkeys(numbers, "float64"))
