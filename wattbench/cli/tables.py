"""Results as rich tables: metrics down, operating points across, findings in plain words."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wattbench.core.errors import WattbenchError
from wattbench.core.result import Estimate, Finding
from wattbench.metrics import LATENCIES, QUANTILES, PointFacts
from wattbench.results import PointResult

POINTS_PER_TABLE = 4
PLAIN_WIDTH = 140
"""Width where there is no terminal that tells [characters]."""
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
    ("tokens_per_joule", "tokens / J"),
    ("interactivity_per_watt", "tokens/s/user per W"),
)


def console() -> Console:
    """Standard output as a rich console, wide where nothing limits it."""
    return Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)


def print_points(points: Sequence[PointResult]) -> None:
    """Print results: a table per few operating points, then what to know about them."""
    out = console()
    for group in _groups(points):
        out.print(_title(group[0].facts), soft_wrap=True)
        out.print(_table(group))
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


def _groups(points: Sequence[PointResult]) -> list[list[PointResult]]:
    """Points of one batch side by side, a few at a time."""
    groups: list[list[PointResult]] = []
    for point in points:
        batch_id = point.facts.runs[0].raw.record.batch_id
        last = groups[-1] if groups else []
        same = last and last[0].facts.runs[0].raw.record.batch_id == batch_id
        if same and len(last) < POINTS_PER_TABLE:
            last.append(point)
        else:
            groups.append([point])
    return groups


def _table(points: Sequence[PointResult]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for point in points:
        record = point.facts.runs[0].raw.record
        load = ", ".join(f"{key} {value}" for key, value in record.operating_point.items())
        table.add_column(escape(load or "point"), no_wrap=True)
    for title, cells in _rows(points):
        table.add_row(title, *cells)
    return table


def _title(facts: PointFacts) -> str:
    record = facts.runs[0].raw.record
    mode = record.engine.mode
    parts = [
        f"[bold]{escape(str(record.workload.get('name')))}[/]",
        f"{escape(record.engine.model)} on {escape(record.engine.engine)}",
        f"hardware {escape(str(record.hardware.get('title') or 'not named'))}",
        f"precision {escape(mode.precision or 'not told')}",
    ]
    return " · ".join(parts)


def _rows(points: Sequence[PointResult]) -> list[tuple[str, list[str]]]:
    rows = [
        ("performance", [_verdict(point.performance) for point in points]),
        ("energy", [_verdict(point.energy) for point in points]),
        ("window", [_window(point.facts) for point in points]),
    ]
    for spec in LATENCIES:
        for label in QUANTILES:
            cells = [_latency(point.facts, spec.name, label) for point in points]
            rows.append((f"{LATENCY_TITLES[spec.name]} {label} ms", cells))
    for name, title in RATIO_ROWS:
        rows.append((title, [_cell(point.facts.metrics[name]) for point in points]))
    rows.append(("energy kind", [_provenance(point.facts) for point in points]))
    rows.append(("net of loaded idle J", [_cell(p.facts.headline.net_loaded_idle) for p in points]))
    return rows


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
        return f"[dim]withheld, n={count}[/]"
    return f"{_cell(estimate, scale=1e3)} [dim]n={count}[/]"


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
    where: dict[Finding, list[str]] = {}
    for point in points:
        load = point.facts.runs[0].raw.record.operating_point
        for finding in point.findings:
            where.setdefault(finding, []).append(_short_load(load))
    if not where:
        return
    out.print("\n[bold]Findings[/]")
    for finding in sorted(where, key=lambda f: list(MARKS).index(f.severity)):
        at = "" if len(where[finding]) == len(points) else f" [dim]({', '.join(where[finding])})[/]"
        message = escape(finding.message)
        out.print(f" {MARKS[finding.severity]} [bold]{finding.code}[/]: {message}{at}")


def _short_load(load: Mapping[str, Any]) -> str:
    return " ".join(f"{key} {value}" for key, value in load.items())
