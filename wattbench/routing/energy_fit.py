"""What steps draw, from measured joules: a non-negative fit over windows of several runs.

    E = idle_watts · (T − busy) + W · busy + e_p · ΣP + e_d · ΣB + e_c · ΣK

The times and sums of a window are those of the replay by a fitted step model; the joules are the
meter's. Rows are weighed by their joules, so a short run counts as much as a long one. Three
windows or more are needed, at unlike batch sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import nnls

from wattbench.core.errors import UsageError
from wattbench.routing import router
from wattbench.routing.calibration import Array, Episode
from wattbench.routing.fleet import Fleet, Machine, Pool
from wattbench.routing.machine import advance
from wattbench.routing.step import Lane, StepModel, affine
from wattbench.routing.world import build

FEWEST = 3
SHRINK = 1e-3
"""Pull of each part towards an equal share of the joules, against the weight of one window."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeteredEpisode:
    """Requests on one machine, and the joules of a window of them.

    Attributes:
        episode: The requests.
        start_s: Start of the window, on the episode's clock [s].
        end_s: Its end [s].
        energy_joules: What the meter says of it [J].
    """

    episode: Episode
    start_s: float
    end_s: float
    energy_joules: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyFit:
    """What was found.

    Attributes:
        energy: The energy lane [J].
        busy_watts: Drawn while busy, whatever is done [W].
        residual_fraction: Root mean square of fitted over measured − 1.
        window_count: Windows that it rests on.
    """

    energy: Lane
    busy_watts: float
    residual_fraction: float
    window_count: int


def fit_energy(machine: Machine, metered: Sequence[MeteredEpisode], idle_watts: float) -> EnergyFit:
    """Fit what steps draw.

    Args:
        machine: With its step model fitted to the same requests.
        metered: Windows with their joules.
        idle_watts: What the machine draws with nothing to do [W].

    Raises:
        UsageError: If there are too few windows.
    """
    if len(metered) < FEWEST:
        raise UsageError(
            f"{len(metered)} runs with joules are too few to tell prompts, answers and waiting "
            f"apart; measure {FEWEST} or more operating points"
        )
    rows, rest = [], []
    for each in metered:
        busy_s, *sums = _sums(machine, each)
        rows.append([busy_s, *sums])
        rest.append(each.energy_joules - idle_watts * (each.end_s - each.start_s - busy_s))
    joules = np.array([each.energy_joules for each in metered])
    table = np.array(rows) / joules[:, None]
    target = np.array(rest) / joules
    scale = table.mean(axis=0)
    scale[scale == 0] = 1.0
    count = len(scale)
    pull = np.sqrt(SHRINK) * np.eye(count)
    found, _ = nnls(
        np.vstack([table / scale, pull]),
        np.concatenate([target, np.full(count, np.sqrt(SHRINK) * target.mean() / count)]),
    )
    watts, prompt, answer, context = (float(each) for each in found / scale)
    misfit = table @ (found / scale) - target
    return EnergyFit(
        energy=affine(
            base=0.0,
            per_request=answer,
            per_prompt_token=prompt,
            per_context_token=context,
        ),
        busy_watts=watts,
        residual_fraction=float(np.sqrt((misfit**2).mean())),
        window_count=len(metered),
    )


def _sums(machine: Machine, metered: MeteredEpisode) -> tuple[float, float, float, float]:
    """Busy seconds, ΣP, ΣB and ΣK of a window, from replays whose joules count them."""
    counting = affine(base=0.0, per_request=1.0, per_prompt_token=1.0)
    busy_s, answers, prompts = _window(machine, counting, metered)
    _, contexts, _ = _window(machine, Lane(per_context_token=1.0), metered)
    return busy_s, prompts, answers, contexts


def _window(machine: Machine, energy: Lane, metered: MeteredEpisode) -> tuple[float, float, float]:
    step = StepModel(memory=machine.step.memory, arithmetic=machine.step.arithmetic, energy=energy)
    fleet = Fleet(pools=(Pool(machine=replace(machine, step=step), count=1, site="site"),))
    world = build(fleet, metered.episode.demand)
    for r in range(len(world.requests)):
        router.send(world, r, 0, 0.0)
    at = [_at(world, end_s) for end_s in (metered.start_s, metered.end_s)]
    busy_s, decode, prefill = (float(later - earlier) for earlier, later in zip(*at, strict=True))
    return busy_s, decode, prefill


def _at(world: Any, until_s: float) -> Array:
    advance(world, 0, until_s)
    record = world.machines[0]
    return np.array([record["busy_s"], record["decode"], record["prefill"]])
