"""Checks of what a file states several times over, against itself."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator

from wattbench.core.run import READ_AS_ZERO, RawRun, stated

AGREEMENT_FRACTION = 0.02
"""Two statements of one figure that differ by more contradict each other; rounding is below."""
WINDOW_S = 0.5
WINDOW_FRACTION = 0.01
"""A duration may differ from another by the larger of the two (InferenceX's own rule)."""
IDLE_FRACTION = 0.35
"""A device below this part of the busiest one's power idles beside it."""
ORDER_FRACTION = 0.005
"""Statistics of one metric may be this far out of order: buckets and rounding are below."""
_PERCENTILE = re.compile(r"^p(\d+(?:\.\d+)?)$")


class _Figures:
    """What a tool states of a run, by name."""

    def __init__(self, raw: RawRun) -> None:
        self.all = raw.reported
        self.raw = raw

    def get(self, metric: str, statistic: str = "total") -> float | None:
        """One figure, None if it is not stated."""
        found = stated(self.all, metric, statistic)
        count = self.raw.record.backend.get("device_count") if metric == "device_count" else None
        return float(count) if found is None and isinstance(count, int | float) else found

    def by_device(self, metric: str) -> dict[str, float]:
        """A figure of each device that is told apart."""
        return {
            r.statistic.removeprefix("device:"): r.value
            for r in self.all
            if r.metric == metric and r.statistic.startswith("device:")
        }


_PRODUCTS = (
    ("energy_power_mismatch", "energy_joules", ("mean_power_watts", "duration_s")),
    (
        "energy_power_mismatch",
        "mean_power_watts",
        ("energy_per_output_token_joules", "output_tokens_per_s"),
    ),
    (
        "energy_token_mismatch",
        "energy_joules",
        ("energy_per_output_token_joules", "output_tokens_count"),
    ),
    (
        "energy_token_mismatch",
        "energy_joules",
        ("energy_per_input_token_joules", "input_tokens_count"),
    ),
    ("energy_request_mismatch", "energy_joules", ("energy_per_request_joules", "completed_count")),
    ("rate_mismatch", "output_tokens_count", ("output_tokens_per_s", "duration_s")),
    ("rate_mismatch", "completed_count", ("requests_per_s", "duration_s")),
    ("device_power_mismatch", "mean_power_watts", ("mean_power_per_device_watts", "device_count")),
)
"""Code, and a figure that is the product of two others."""


def identities(raw: RawRun) -> Iterator[tuple[str, str]]:
    """A figure is not the product of two others that it must be.

    Codes: ``energy_power_mismatch``, ``energy_token_mismatch``, ``energy_request_mismatch``,
    ``rate_mismatch``, ``device_power_mismatch``.
    """
    figures = _Figures(raw)
    for code, whole, parts in _PRODUCTS:
        stated = figures.get(whole)
        factors = [figures.get(part) for part in parts]
        if whole == "energy_joules" and parts[1] == "duration_s":
            factors[1] = figures.get("energy_duration_s") or factors[1]
        known = [factor for factor in factors if factor]
        if not stated or len(known) < len(parts):
            continue
        product = math.prod(known)
        if abs(math.log(product / stated)) > math.log1p(AGREEMENT_FRACTION):
            names = " × ".join(parts)
            yield (
                code,
                f"{names} is {product:.4g}, and {whole} is stated as {stated:.4g}: "
                f"{product / stated:.3g} times as much. One of them has another divisor or window.",
            )


def impossible(raw: RawRun) -> Iterator[tuple[str, str]]:
    """``read_stored_as_zero``: a failed read stands as an energy or a power of zero."""
    zeros = [
        f"{r.metric} ({r.field})"
        for r in raw.reported
        if r.value <= 0 and r.statistic != "sd" and r.metric.endswith(("_joules", "_watts"))
    ]
    for event in raw.events:
        if event.kind == "refused" and str(event.detail["why"]).startswith(READ_AS_ZERO):
            metric = str(event.detail["why"]).removeprefix(READ_AS_ZERO).strip(": ").split(" ")[0]
            zeros.append(f"{metric} ({event.detail['field']})")
    if zeros:
        yield (
            "read_stored_as_zero",
            f"{', '.join(zeros)} is zero or less; no machine that is on draws nothing, so a failed "
            f"read was stored as a number. It must be missing, with a reason.",
        )


def devices(raw: RawRun) -> Iterator[tuple[str, str]]:
    """``idle_devices_summed``, ``device_sum_mismatch``: devices that idle are in the sum."""
    figures = _Figures(raw)
    for metric in ("energy_joules", "mean_power_watts"):
        found = figures.by_device(metric)
        busiest = max(found.values(), default=0.0)
        idle = sorted(name for name, value in found.items() if value < IDLE_FRACTION * busiest)
        total, expected = figures.get(metric), sum(found.values())
        if total and expected and abs(total / expected - 1) > AGREEMENT_FRACTION:
            yield (
                "device_sum_mismatch",
                f"the devices' {metric} add up to {expected:.4g}, and {total:.4g} is stated.",
            )
        elif idle and total:
            rest = sum(value for name, value in found.items() if name not in idle)
            yield (
                "idle_devices_summed",
                f"{', '.join(idle)} of {len(found)} devices idle, and are in the {metric} of "
                f"{total:.4g}; those that work have {rest:.4g}, {total / rest - 1:.0%} less.",
            )


def windows(raw: RawRun) -> Iterator[tuple[str, str]]:
    """``window_mismatch``: energy and load are over windows of unlike length."""
    figures = _Figures(raw)
    duration_s, energy_s = figures.get("duration_s"), figures.get("energy_duration_s")
    start_s, end_s = (figures.raw.event_time_s(k) for k in ("measure_start", "measure_end"))
    pairs = [("the energy was integrated over", energy_s)]
    placed = figures.raw.record.backend.get("alignment") != "enveloped"
    if placed and start_s is not None and end_s is not None:
        pairs.append(("its first and last stamps are apart", end_s - start_s))
    for what, other_s in pairs:
        if duration_s and other_s:
            limit_s = max(WINDOW_S, WINDOW_FRACTION * duration_s)
            if abs(other_s - duration_s) > limit_s:
                yield (
                    "window_mismatch",
                    f"the load lasted {duration_s:.4g} s, and {what} {other_s:.4g} s.",
                )


def statistics(raw: RawRun) -> Iterator[tuple[str, str]]:
    """``statistics_disordered``: a minimum above the mean, a p99 below the p90, and the like."""
    by_metric: dict[str, dict[str, float]] = {}
    for one in raw.reported:
        by_metric.setdefault(one.metric, {})[one.statistic] = one.value
    for metric, found in by_metric.items():
        ordered = sorted((rank, name) for name in found if (rank := _rank(name)) is not None)
        pairs = list(itertools.pairwise(name for _, name in ordered))
        pairs += [pair for pair in (("min", "mean"), ("mean", "max")) if set(pair) <= found.keys()]
        wrong = [
            f"{low} {found[low]:.4g} above {high} {found[high]:.4g}"
            for low, high in pairs
            if found[low] - found[high] > ORDER_FRACTION * abs(found[low])
        ]
        if wrong:
            yield (
                "statistics_disordered",
                f"{metric}: {', '.join(wrong)}. Statistics of one sample cannot be so; one of them "
                f"is of another sample or another unit, or two were exchanged.",
            )


def _rank(statistic: str) -> float | None:
    """Place of a statistic in the order of size, None if it has none."""
    found = _PERCENTILE.match(statistic)
    return float(found[1]) if found else {"min": -1.0, "max": 101.0}.get(statistic)
