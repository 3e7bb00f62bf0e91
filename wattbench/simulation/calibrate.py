"""A calibration: a step model fitted on the requests queued first, scored on the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wattbench.core.errors import UsageError
from wattbench.routing.calibration import Array, Episode, StepFit, fit_steps, replayed
from wattbench.routing.energy_fit import EnergyFit
from wattbench.routing.step import Lane
from wattbench.simulation.engine_log import Engine, EngineLog

FITTED = 150
"""Requests of a log, by the time they were queued, that are looked at, half of them at most."""
FEWEST = 10
P99 = 0.99


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replayed:
    """A log beside its replay, arrays (n,) [s]; the first ``fitted`` requests were looked at."""

    log: EngineLog
    fitted: int
    admitted_s: Array
    first_s: Array
    last_s: Array
    preemptions_count: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """What was found, and the replay of all requests with it."""

    engine: Engine
    fit: StepFit
    parts: tuple[Replayed, ...]


def calibrate(logs: Sequence[EngineLog], engine: Engine, most: int = FITTED) -> Calibration:
    """Fit on the requests queued first of each log, replay all.

    Args:
        logs: Requests, each log on a machine that was empty at its start.
        engine: Limits of the engine.
        most: Requests of each log that are looked at, half of them at most.

    Raises:
        UsageError: If too few requests are left to fit or to score, or a limit cannot be true.
    """
    fitted = [min(most, len(log) // 2) for log in logs]
    if sum(fitted) < FEWEST:
        raise UsageError(
            f"{sum(len(log) for log in logs)} requests are too few: {FEWEST} are needed to fit and "
            f"as many to score; give a longer log"
        )
    for log in logs:
        _check_capacity(log, engine)
    episodes = [_episode(log, count) for log, count in zip(logs, fitted, strict=True)]
    fit = fit_steps(episodes, engine.limits)
    parts = []
    for log, count, episode in zip(logs, fitted, episodes, strict=True):
        found, admitted_s = replayed(fit.machine, episode.demand)
        parts.append(
            Replayed(
                log=log,
                fitted=count,
                admitted_s=admitted_s,
                first_s=found["first_s"].copy(),
                last_s=found["finish_s"].copy(),
                preemptions_count=int(found["preempted"].sum()),
            )
        )
    return Calibration(engine=engine, fit=fit, parts=tuple(parts))


def _episode(log: EngineLog, fitted: int) -> Episode:
    return Episode(
        arrival_s=log.queued_s,
        input_tokens=log.input_tokens,
        output_tokens=log.output_tokens,
        first_s=log.first_s,
        last_s=log.last_s,
        known=(np.arange(len(log)) < fitted) & np.isfinite(log.last_s),
    )


def _check_capacity(log: EngineLog, engine: Engine) -> None:
    longest = int((log.input_tokens + log.output_tokens).max()) + engine.limits.kv_request_tokens
    capacity = engine.limits.kv_capacity_tokens
    if capacity is not None and longest > capacity:
        raise UsageError(
            f"a request that takes {longest} tokens of KV memory was served, but the engine's file "
            f"tells of {capacity}; correct num_kv_tokens, or leave it out"
        )


def scores(calibration: Calibration, *, fitted: bool = False) -> dict[str, Any]:
    """Simulated against measured: |ratio − 1| of medians, means and 99th percentiles.

    ``…_bias`` is the same with its sign, ``…_each`` the median over requests of each one's own
    |error|. Of the requests that were not looked at, or of the others.
    """
    measured, simulated = [
        [_latencies(part, measured=way, fitted=fitted) for part in calibration.parts]
        for way in (True, False)
    ]
    real = {name: np.concatenate([each[name] for each in measured]) for name in measured[0]}
    found = {name: np.concatenate([each[name] for each in simulated]) for name in real}
    bias = {
        "tpot_median": float(np.median(found["tpot"]) / np.median(real["tpot"]) - 1),
        "e2e_mean": float(found["e2e"].mean() / real["e2e"].mean() - 1),
        "ttft_p99": float(np.quantile(found["ttft"], P99) / np.quantile(real["ttft"], P99) - 1),
        "ttft_mean": float(found["ttft"].mean() / real["ttft"].mean() - 1),
    }
    return {
        **{f"{name}_error": abs(value) for name, value in bias.items()},
        **{f"{name}_bias": value for name, value in bias.items()},
        **{
            f"{name}_each": float(np.median(np.abs(found[name] / real[name] - 1)))
            for name in ("tpot", "e2e")
        },
    }


def _latencies(part: Replayed, *, measured: bool, fitted: bool) -> dict[str, Array]:
    log = part.log
    chosen = (np.arange(len(log)) < part.fitted) == fitted
    chosen &= np.isfinite(log.last_s)
    first_s, last_s = (log.first_s, log.last_s) if measured else (part.first_s, part.last_s)
    many = chosen & (log.output_tokens > 1)
    return {
        "tpot": (last_s - first_s)[many] / (log.output_tokens[many] - 1),
        "e2e": (last_s - log.queued_s)[chosen],
        "ttft": (first_s - log.queued_s)[chosen],
    }


def as_json(calibration: Calibration) -> dict[str, Any]:
    """What ``--json`` prints under ``calibration``."""
    fit, parts = calibration.fit, calibration.parts
    total, fitted = sum(len(part.log) for part in parts), sum(part.fitted for part in parts)
    runs = "" if len(parts) == 1 else f" in {len(parts)} runs"
    return {
        **scores(calibration),
        "fitted_on": f"the first {fitted} of {total} requests{runs}, by the time they were queued",
        "scored_on": f"the other {total - fitted}",
        "on_the_fitted": scores(calibration, fitted=True),
        "queue_wait_s": _waits(calibration),
        "max_batch": fit.machine.max_batch,
        "max_batch_from": fit.places_from,
        "kv_capacity_tokens": fit.capacity_tokens,
        "kv_capacity_told_tokens": calibration.engine.limits.kv_capacity_tokens,
        "kv_capacity_from": fit.capacity_from,
        "preemptions": sum(part.preemptions_count for part in parts),
        "form": fit.form,
        "constants": fit.constants,
        "assumed": list(calibration.engine.assumed),
    }


def _waits(calibration: Calibration) -> dict[str, float | None]:
    """From queued to first scheduled, of the requests that were not looked at."""
    found, real = [], []
    for part in calibration.parts:
        found.append((part.admitted_s - part.log.queued_s)[part.fitted :])
        if part.log.wait_s is not None:
            real.append(part.log.wait_s[part.fitted :])
    waits: dict[str, float | None] = {"measured_mean": None, "measured_p99": None}
    for name, each in (("measured", real), ("simulated", found)):
        if each:
            waits[f"{name}_mean"] = float(np.concatenate(each).mean())
            waits[f"{name}_p99"] = float(np.quantile(np.concatenate(each), P99))
    return waits


def pool_text(
    calibration: Calibration,
    energy: EnergyFit | None,
    idle_watts: float | None,
    about: str,
    kind: str,
) -> dict[str, Any]:
    """The file that a pool names under ``calibration:``.

    Without joules it has no energy, and a pool that names it has to be given one.
    """
    machine, fit_form = calibration.fit.machine, calibration.fit.form
    step: dict[str, Any] = {"memory": _lane_text(machine.step.memory), "kind": kind}
    if fit_form == "max":
        step["arithmetic"] = _lane_text(machine.step.arithmetic)
    text: dict[str, Any] = {"about": about, "step": step}
    if energy is not None:
        step |= {"energy": _lane_text(energy.energy), "busy_watts": energy.busy_watts}
    for key in (
        "max_batch",
        "max_step_tokens",
        "kv_capacity_tokens",
        "kv_request_tokens",
        "kv_rule",
    ):
        text[key] = getattr(machine, key)
    if idle_watts is not None:
        text["idle_watts"] = idle_watts
    fit = {key: value for key, value in as_json(calibration).items() if key != "constants"}
    if energy is not None:
        fit["energy_residual_fraction"] = energy.residual_fraction
        fit["energy_windows"] = energy.window_count
    return {**text, "fit": fit}


def _lane_text(lane: Lane) -> dict[str, Any]:
    return {
        "tokens": [list(point) for point in lane.tokens],
        "batch": [list(point) for point in lane.batch or ((0.0, 0.0),)],
        "per_context_token": lane.per_context_token,
        "per_attended_token": lane.per_attended_token,
    }
