"""The frontier: how fast one user is served against how far a joule goes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wattbench.core.result import Estimate
from wattbench.results import PointResult

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito's palette, told apart with colour-blind eyes."""
MARKERS = {
    "counter": "o",
    "integrated": "s",
    "derived": "D",
    "reported": "v",
    "modelled": "^",
    "nameplate": "X",
}


def frontier(points: Sequence[PointResult]) -> Figure:
    """Tokens/s for one user against output tokens per joule, one point per operating point.

    The marker tells the kind of the joules, an open one a verdict that is not valid; bars are
    95 % intervals. A point without both figures is not drawn but counted in the caption.

    Args:
        points: Results of any number of batches; each batch is one line.
    """
    with mpl.rc_context({"font.size": 10, "axes.grid": True, "grid.alpha": 0.3}):
        figure = Figure(figsize=(9.0, 6.0), dpi=130, layout="constrained")
        axes = figure.add_subplot()
        shown = [point for point in points if _drawable(point)]
        for colour, series in zip(itertools.cycle(COLOURS), _series(shown), strict=False):
            _draw(axes, series, colour)
        _dress(axes, shown, len(points) - len(shown))
    return figure


def _xy(point: PointResult) -> tuple[Estimate, Estimate]:
    metrics = point.facts.metrics
    return metrics["interactivity_tokens_per_s_per_user"], metrics["tokens_per_joule"]


def _drawable(point: PointResult) -> bool:
    return all(estimate.value is not None for estimate in _xy(point))


def _valid(point: PointResult) -> bool:
    return point.energy == "valid" and point.performance == "valid"


def _series(points: Sequence[PointResult]) -> list[list[PointResult]]:
    """Points of one batch belong together if the engine computed them in the same way."""
    groups: dict[tuple[str, str], list[PointResult]] = {}
    for point in points:
        record = point.facts.runs[0].raw.record
        groups.setdefault((record.batch_id, record.engine.mode.text), []).append(point)
    return list(groups.values())


def _draw(axes: Axes, series: list[PointResult], colour: str) -> None:
    record = series[0].facts.runs[0].raw.record
    label = f"{record.engine.model} ({record.engine.mode.text})"
    machine = str(
        record.hardware.get("title") or record.hardware.get("name") or record.backend.get("name")
    )
    xs = [_xy(point)[0].value or 0.0 for point in series]
    ys = [_xy(point)[1].value or 0.0 for point in series]
    axes.plot(xs, ys, color=colour, linewidth=1.2, alpha=0.6, label=f"{label}\n{machine}")
    for point in series:
        x, y = _xy(point)
        open_marker = not _valid(point)
        axes.errorbar(
            x.value or 0.0,
            y.value or 0.0,
            xerr=_bars(x),
            yerr=_bars(y),
            marker=MARKERS.get(point.facts.headline.kind or "", "o"),
            markersize=9,
            markerfacecolor="white" if open_marker else colour,
            markeredgewidth=1.6,
            color=colour,
            capsize=3,
            elinewidth=1.0,
        )
        axes.annotate(
            _load(point),
            (x.value or 0.0, y.value or 0.0),
            xytext=(9, 7),
            textcoords="offset points",
            fontsize=9,
        )


def _bars(estimate: Estimate) -> list[list[float]] | None:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return None
    return [
        [max(0.0, estimate.value - estimate.low)],
        [max(0.0, estimate.high - estimate.value)],
    ]


def _load(point: PointResult) -> str:
    load = point.facts.runs[0].raw.record.operating_point
    short = {"concurrency": "c", "rate_per_s": "req/s "}
    return ", ".join(f"{short.get(key, key + ' ')}{value}" for key, value in load.items())


def _dress(axes: Axes, shown: Sequence[PointResult], left_out: int) -> None:
    axes.set_xlabel("speed for one user, median [output tokens/s/user]   faster →")
    axes.set_ylabel("energy efficiency [output tokens/J]   thriftier →")
    axes.set_title("Speed against energy", loc="left", fontweight="bold")
    if _spans_decades(shown):
        axes.set_yscale("log")
    # Room at the right and the top, where the labels of the best points stand.
    axes.set_xlim(0, 1.1 * axes.get_xlim()[1])
    if axes.get_yscale() == "linear":
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    notes = [f"c: concurrency; bars: 95 % interval; energy {_kinds(shown)}"]
    if not all(_valid(point) for point in shown):
        notes.append("open marker: doubtful or invalid")
    if left_out:
        notes.append(f"{left_out} points without both figures are left out")
    axes.text(0.0, -0.13, " · ".join(notes), transform=axes.transAxes, fontsize=8, color="#444444")
    if shown:
        axes.legend(loc="best", fontsize=8, framealpha=0.9)
    else:
        axes.text(0.5, 0.5, "nothing to draw", transform=axes.transAxes, ha="center")


def _spans_decades(shown: Sequence[PointResult]) -> bool:
    """Whether wide intervals would squeeze the points themselves on a linear axis."""
    lows = [y.low for _, y in map(_xy, shown) if y.low]
    highs = [y.high for _, y in map(_xy, shown) if y.high]
    return bool(lows) and max(highs) / min(lows) > 20


def _kinds(shown: Sequence[PointResult]) -> str:
    found = {
        (p.facts.headline.kind, p.facts.headline.domain.boundary)
        for p in shown
        if p.facts.headline.domain is not None
    }
    return " and ".join(f"{kind} at the {boundary}" for kind, boundary in sorted(found, key=str))
