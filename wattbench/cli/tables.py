"""Results as rich tables: metrics down, operating points across, findings in plain words."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from wattbench.core.errors import WattbenchError
from wattbench.core.result import Estimate, Finding
from wattbench.core.run import Mode
from wattbench.metrics import LATENCIES, METRICS, QUANTILES, PointFacts, PooledDomain
from wattbench.results import PointResult
from wattbench.stats import needed_for_quantile

POINTS_PER_TABLE = 4
PLAIN_WIDTH = 140
"""Width where there is no terminal that tells [characters]."""
WITHHELD = "too_few_samples"
STYLES = {"valid": "green", "doubtful": "yellow", "invalid": "red"}
MARKS = {"error": "[red]✗[/]", "warning": "[yellow]![/]", "info": "[blue]i[/]"}
LATENCY_TITLES = {"ttft_s": "TTFT", "tpot_s": "TPOT", "itl_s": "ITL", "e2e_s": "E2E"}
RATIO_ROWS = (
    ("output_tokens_per_s", "output tokens/s"),
    ("interactivity_tokens_per_s_per_user", "tokens/s/user"),
    ("mean_power_watts", "mean power W"),
    ("energy_per_output_token_joules", "J / output token"),
    ("energy_per_input_token_joules", "J / input token"),
    ("energy_per_total_token_joules", "J / total token"),
    ("energy_per_request_joules", "J / request"),
    ("goodput_requests_per_s", "goodput requests/s"),
    ("energy_per_good_request_joules", "J / good request"),
    ("tokens_per_joule", "tokens / J"),
    ("interactivity_per_watt", "tokens/s/user per W"),
)


def console(*, to_stderr: bool = False) -> Console:
    """Standard output, or error, as a rich console, wide where nothing limits it."""
    stream = sys.stderr if to_stderr else sys.stdout
    width = None if stream.isatty() else PLAIN_WIDTH
    return Console(emoji=False, stderr=to_stderr, width=width)


def fits(out: Console, table: Table) -> bool:
    """Whether a table can be printed without breaking or cutting a cell."""
    unlimited = out.options.update(width=10_000)
    return Measurement.get(out, unlimited, table).maximum <= out.width


def print_points(points: Sequence[PointResult], *, to_stderr: bool = False) -> None:
    """Print results: a table per few operating points, then what to know about them."""
    out = console(to_stderr=to_stderr)
    for batch in _batches(points):
        out.print(_title(batch[0].facts), soft_wrap=True)
        begin = 0
        while begin < len(batch):
            end = begin + _count_that_fits(out, batch[begin:])
            out.print(_table(batch[begin:end]))
            begin = end
    _print_findings(out, points)


def require_valid(points: Sequence[PointResult]) -> None:
    """Fail closed.

    Raises:
        WattbenchError: If a verdict is not ``valid``, naming the first.
    """
    for point in points:
        for scope, verdict in (("performance", point.performance), ("energy", point.energy)):
            if verdict != "valid":
                codes = [f.code for f in point.findings if f.severity != "info"]
                load = _short_load(point.facts.runs[0].raw.record.operating_point)
                raise WattbenchError(
                    f"--require-valid: the {scope} verdict of {load or 'a point'} is {verdict} "
                    f"({', '.join(dict.fromkeys(codes))})"
                )


def _batches(points: Sequence[PointResult]) -> list[Sequence[PointResult]]:
    """Points by batch, in their order."""
    by_batch = itertools.groupby(points, lambda point: point.facts.runs[0].raw.record.batch_id)
    return [list(batch) for _, batch in by_batch]


def _count_that_fits(out: Console, points: Sequence[PointResult]) -> int:
    """How many of the first points can stand side by side; one at least."""
    most = min(POINTS_PER_TABLE, len(points))
    counts = (count for count in range(most, 1, -1) if fits(out, _table(points[:count])))
    return next(counts, 1)


def _table(points: Sequence[PointResult]) -> Table:
    """Cells that do not fit even so are folded; an ellipsis would stand for an interval."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", overflow="fold")
    for point in points:
        record = point.facts.runs[0].raw.record
        load = _short_load(record.operating_point, between=", ")
        table.add_column(escape(load or "point"), overflow="fold")
    for title, cells in _rows(points):
        table.add_row(title, *cells)
    return table


def _title(facts: PointFacts) -> str:
    record = facts.runs[0].raw.record
    hardware = record.hardware.get("title") or record.hardware.get("name") or "not named"
    parts = [
        f"[bold]{escape(str(record.workload.get('name')))}[/]",
        f"{escape(record.engine.model)} on {escape(record.engine.engine)}",
        f"hardware {escape(str(hardware))}",
    ]
    return " · ".join(parts)


def _rows(points: Sequence[PointResult]) -> list[tuple[str, list[str]]]:
    rows = [
        ("performance", [_verdict(point.performance) for point in points]),
        ("energy", [_verdict(point.energy) for point in points]),
        ("window", [_window(point.facts) for point in points]),
    ]
    rows += _mode_rows([point.facts.runs[0].raw.record.engine.mode for point in points])
    for spec in LATENCIES:
        for label in QUANTILES:
            cells = [_latency(point.facts, spec.name, label) for point in points]
            rows.append((f"{LATENCY_TITLES[spec.name]} {label} ms", cells))
    for name, title in RATIO_ROWS:
        found = [point.facts.metrics[name] for point in points]
        if any(estimate.reason != "no_slo" for estimate in found):
            rows.append((title, [_ratio(point.facts, name) for point in points]))
    rows.append(("energy kind", [_provenance(point.facts) for point in points]))
    rows.append(("net of loaded idle J", [_cell(p.facts.headline.net_loaded_idle) for p in points]))
    return rows + _device_rows(points)


def _mode_rows(modes: Sequence[Mode]) -> list[tuple[str, list[str]]]:
    """How the engine computed, as far as any of them tells."""
    rows = [("precision", [escape(mode.precision or "not told") for mode in modes])]
    if any(mode.kv_precision for mode in modes):
        rows.append(("KV precision", [escape(mode.kv_precision or "not told") for mode in modes]))
    if any(mode.speculates for mode in modes):
        rows.append(("speculative", [escape(mode.speculative or "not told") for mode in modes]))
    return rows


def _device_rows(points: Sequence[PointResult]) -> list[tuple[str, list[str]]]:
    """What stands beside the energy charged: idle devices, the whole host, and roles."""
    shares: dict[str, list[PooledDomain | None]] = {
        "idle neighbours J": [point.facts.neighbours for point in points],
        "whole host J": [point.facts.host for point in points],
    }
    for role in dict.fromkeys(role for point in points for role in point.facts.roles):
        shares[f"{role} devices J"] = [point.facts.roles.get(role) for point in points]
    return [
        (escape(title), [_cell(share.gross) if share else "" for share in cells])
        for title, cells in shares.items()
        if any(cells)
    ]


def _verdict(verdict: str) -> str:
    return f"[{STYLES[verdict]}]{verdict}[/]"


def _window(facts: PointFacts) -> str:
    windows = [run.window for run in facts.runs if run.window]
    if not windows:
        return "none"
    total_s = sum(window.duration_s for window in windows)
    return f"{len(windows)} × {total_s / len(windows):.1f} s {windows[0].kind}"


def _latency(facts: PointFacts, name: str, label: str) -> str:
    estimate = facts.latencies[name][label]
    count = facts.latency_counts[name]
    if estimate.value is None:
        known = estimate.reason in (None, WITHHELD)
        return f"[dim]withheld, n={count}[/]" if known else _cell(estimate)
    return f"{_cell(estimate, scale=1e3)} [dim]n={count}[/]"


def _ratio(facts: PointFacts, name: str) -> str:
    """A reported joule has no scatter, and the width that is assumed of it stands in its place."""
    estimate, gross = facts.metrics[name], facts.headline.gross
    power = next((spec.energy_power for spec in METRICS if spec.name == name), 0)
    if (
        not power
        or estimate.value is None
        or estimate.low is not None
        or facts.headline.kind != "reported"
        or not (gross.value and gross.low and gross.high)
    ):
        return _cell(estimate)
    low, high = sorted(
        estimate.value * (edge / gross.value) ** power for edge in (gross.low, gross.high)
    )
    return f"{_cell(dataclasses.replace(estimate, low=low, high=high))} [dim]assumed[/]"


def _provenance(facts: PointFacts) -> str:
    headline = facts.headline
    if headline.domain is None or headline.kind is None:
        return "[dim]none[/]"
    current = f" {headline.domain.current.upper()}" if headline.domain.current else ""
    return f"{headline.kind}, {headline.domain.boundary}{current}"


def _cell(estimate: Estimate, scale: float = 1.0) -> str:
    """Value and interval; what is unknown says why."""
    if estimate.value is None:
        return f"[dim]– ({estimate.reason})[/]"
    value = number(estimate.value * scale)
    if estimate.low is None or estimate.high is None:
        return f"{value} [dim](no interval)[/]"
    interval = f"{number(estimate.low * scale)} … {number(estimate.high * scale)}"
    return f"[bold]{value}[/] [dim]{interval}[/]"


def number(value: float) -> str:
    """Three significant digits, without an exponent where that reads well."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 1e-3:
        return f"{value:.3g}"
    return f"{value:.2e}"


def _print_findings(out: Console, points: Sequence[PointResult]) -> None:
    """Each finding once, with the points that it touches."""
    where: dict[Finding, list[PointResult]] = {}
    for point in points:
        for finding in point.findings:
            if finding.code != WITHHELD:
                where.setdefault(finding, []).append(point)
    withheld = _withheld(points)
    if withheld is not None:
        where[withheld] = list(points)
    if not where:
        return
    out.print("\n[bold]Findings[/]")
    for finding in sorted(where, key=lambda f: list(MARKS).index(f.severity)):
        touched = where[finding]
        at = "" if len(touched) == len(points) else f" [dim]({escape(_loads(touched))})[/]"
        message = escape(finding.message)
        out.print(f" {MARKS[finding.severity]} [bold]{finding.code}[/]: {message}{at}")


def _withheld(points: Sequence[PointResult]) -> Finding | None:
    """One finding for what each point says of each percentile that its sample does not carry."""
    found = [f for point in points for f in point.findings if f.code == WITHHELD]
    if not found:
        return None
    parts = []
    for label, share in QUANTILES.items():
        lacking = [point for point in points if _lacks(point, label)]
        if lacking:
            parts.append(f"{label} takes {needed_for_quantile(share)} values ({_loads(lacking)})")
    more = found[0].message.rpartition("values. ")[2]
    message = f"Percentiles are withheld: {'; '.join(parts)}. {more}"
    return dataclasses.replace(found[0], message=message)


def _lacks(point: PointResult, label: str) -> bool:
    said = any(finding.code == WITHHELD for finding in point.findings)
    estimates = [quantiles[label] for quantiles in point.facts.latencies.values()]
    return said and any(estimate.reason == WITHHELD for estimate in estimates)


def _loads(points: Sequence[PointResult]) -> str:
    loads = (_short_load(point.facts.runs[0].raw.record.operating_point) for point in points)
    return ", ".join(dict.fromkeys(load or "point" for load in loads))


def _short_load(load: Mapping[str, Any], between: str = " ") -> str:
    return between.join(f"{key} {value}" for key, value in load.items())
