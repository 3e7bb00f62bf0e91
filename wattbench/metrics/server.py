"""What the server said about itself, as means over the measured windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from wattbench.core.run import ServerState
from wattbench.metrics.run import RunFacts


def server_means(runs: Sequence[RunFacts]) -> ServerState | None:
    """Mean of each value over the steady windows of all runs, None if no server told any."""
    details = [
        event.detail
        for run in runs
        if run.window is not None
        for event in run.raw.events
        if event.kind == "server_state" and run.window.start_s <= event.time_s <= run.window.end_s
    ]
    if not details:
        return None
    means: dict[str, float | None] = {}
    for field in dataclasses.fields(ServerState):
        told = [detail.get(field.name) for detail in details]
        values = [float(value) for value in told if isinstance(value, int | float)]
        means[field.name] = sum(values) / len(values) if values else None
    return ServerState(**means)
