"""Routing policies: the joules of a token against the wait for the first one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wattbench.plots.frontier import COLOURS

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")


def policies(result: Mapping[str, Any]) -> Figure:
    """Joules per output token against p99 TTFT, one point per policy and swept case.

    Bars are 95 % intervals over the seeds, where there are several. An open marker is a policy that
    refused or cancelled requests. Down and left is better on both.

    Args:
        result: A simulation as it is stored.
    """
    with mpl.rc_context({"font.size": 10, "axes.grid": True, "grid.alpha": 0.3}):
        figure = Figure(figsize=(9.0, 6.0), dpi=130, layout="constrained")
        axes = figure.add_subplot()
        shown = 0
        styles = itertools.product(MARKERS, COLOURS)
        for case in result["cases"]:
            swept = ", ".join(f"{key} = {value}" for key, value in case["sweep"].items())
            for policy, (marker, colour) in zip(case["policies"], styles, strict=False):
                label = f"{policy['policy']} {swept}".strip()
                shown += _draw(axes, policy, label, (marker, colour))
        axes.set_xlabel("TTFT, p99 [s]")
        axes.set_ylabel("energy per output token [J]")
        axes.set_title(f"{result['scenario']}: {shown} policies", loc="left")
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        if shown:
            axes.legend(fontsize=8)
    return figure


def _draw(axes: Axes, policy: Mapping[str, Any], label: str, style: tuple[str, str]) -> int:
    """Draw one policy; 1 if it has both figures."""
    x, y = policy["ttft_s"]["p99"], policy["energy_per_output_token_joules"]
    if x["value"] is None or y["value"] is None:
        return 0
    marker, colour = style
    served = policy["requests"]["served"]["value"] == policy["requests"]["arrived"]["value"]
    axes.errorbar(
        x["value"],
        y["value"],
        xerr=_bars(x),
        yerr=_bars(y),
        marker=marker,
        color=colour,
        markerfacecolor=colour if served else "white",
        linestyle="none",
        capsize=3,
        label=label,
    )
    return 1


def _bars(estimate: Mapping[str, Any]) -> list[list[float]] | None:
    if estimate.get("low") is None or estimate.get("high") is None:
        return None
    value = estimate["value"]
    return [[value - estimate["low"]], [estimate["high"] - value]]
