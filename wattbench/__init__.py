"""wattbench: how many joules a token costs, and how sure that number is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wattbench.frames import Frames
    from wattbench.routing.fleet import Fleet
    from wattbench.simulation import Scenario, SimulationFrames
    from wattbench.traces import Trace

__version__ = "0.1.0"


def load(database: str | Path | None = None, runs: str | None = None) -> Frames:
    """Stored runs as pandas data frames: ``runs``, ``points``, ``requests`` and ``power``.

    Args:
        database: Path or URL; None: ``WATTBENCH_DB``, else the usual place.
        runs: Which runs, as ``--runs`` takes it; None for all.

    Raises:
        UsageError: If the selector means nothing.
        StoreError: If the database cannot be read.
    """
    from wattbench.frames import load_frames

    return load_frames(database, runs)


def simulate(
    fleet_or_scenario: Fleet | Scenario | str | Path,
    trace: Trace | str | Path | None = None,
    policy: str | Sequence[str] | None = None,
    seed: int | Sequence[int] = 0,
) -> SimulationFrames:
    """Route requests over a fleet: frames ``requests``, ``machines`` and ``policies``.

    Args:
        fleet_or_scenario: A ``wattbench.routing.fleet.Fleet``, or a scenario, its name or path.
        trace: Requests, a path, or a generator with options; None: those of the scenario.
        policy: One or more policies with their options; None: those of the scenario.
        seed: One or more.

    Raises:
        UsageError: If something is missing or cannot be meant.
    """
    from wattbench.simulation import simulate as simulated

    return simulated(fleet_or_scenario, trace, policy, seed)
