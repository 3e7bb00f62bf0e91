"""``wattbench search``: the load with the most tokens per joule that meets the service level."""

from __future__ import annotations

import json
from typing import Any

import click
import numpy as np

from wattbench.cli.asked import asked_options
from wattbench.cli.batch import Batch, prepare
from wattbench.cli.run import interruption, run_console, show_line
from wattbench.cli.schedule import Results
from wattbench.cli.setting import Load, Request, Setting
from wattbench.cli.tables import console, number, print_points
from wattbench.core.errors import UsageError, WattbenchError
from wattbench.metrics import LATENCIES, QUANTILES, PointFacts
from wattbench.results import PointResult, document
from wattbench.search import LoadSearch
from wattbench.workload import ClosedLoop

MAX_CONCURRENCY = 100_000


class _Searching:
    """A schedule that asks the search for the next load, once it has told it the last one."""

    def __init__(self, search: LoadSearch, results: Results) -> None:
        self._search = search
        self._results = results

    def next(self) -> tuple[Load, int] | None:
        """The next load, measured once."""
        known = {trial.concurrency for trial in self._search.trials}
        for point in self._results():
            load = point.facts.runs[0].raw.record.operating_point["concurrency"]
            assert isinstance(load, int)
            if load not in known:
                value = point.facts.metrics["tokens_per_joule"].value
                allowed = value if point.energy != "invalid" else None
                self._search.tell(load, allowed, margin_fractions(point.facts))
        wanted = self._search.ask()
        return None if wanted is None else (Load(concurrency=wanted), 0)


def margin_fractions(facts: PointFacts) -> list[float]:
    """Latency over limit of every objective; where the percentile is withheld, the sample's."""
    found = []
    for one in facts.slo:
        value = one.found.value
        if value is None:
            spec = next(s for s in LATENCIES if s.name == one.objective.latency)
            measured = [spec.values(r) for run in facts.runs for r in run.measured]
            values = np.concatenate(measured or [np.empty(0)])
            share = QUANTILES[one.objective.label]
            value = float(np.quantile(values, share)) if len(values) else float("inf")
        found.append(value / one.objective.limit_s)
    return found


@click.command(name="search")
@click.option(
    "--max-concurrency",
    type=click.IntRange(1, MAX_CONCURRENCY),
    default=512,
    show_default=True,
    help="Largest load that may be tried.",
)
@click.option(
    "--max-runs",
    type=click.IntRange(1, 100),
    default=8,
    show_default=True,
    help="How many loads may be tried.",
)
@asked_options
def command(
    *,
    max_concurrency: int,
    max_runs: int,
    database: str | None,
    as_json: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """Find the concurrency with the most tokens per joule that meets the service level.

    WORKLOAD must be a closed loop; its own concurrencies are not used. Each load is one run, and
    all are kept: repeat the best one with `wattbench run … --concurrency N --repeats 5`.

    \b
    Examples:
      wattbench search quickstart --backend emulated --hardware h100-sxm --slo "tpot:p95<20ms"
      wattbench search my.yaml --backend openai,url=http://127.0.0.1:8000/v1 --meter nvml
    """  # noqa: D301 - click reads the backslash
    search = LoadSearch(highest=max_concurrency, most_runs=max_runs)

    def make_schedule(setting: Setting, results: Results) -> _Searching:
        if not isinstance(setting.workload.arrivals, ClosedLoop):
            raise UsageError(
                f"workload {setting.workload.name!r} has {setting.workload.arrivals.kind} "
                f"arrivals; search varies the users of a closed loop"
            )
        return _Searching(search, results)

    request = Request(**asked, repeats=max_runs, concurrency=(1,))
    batch = prepare(request, database, make_schedule)
    stopped = batch.carry_out(run_console(show=not (as_json or quiet)))
    points = batch.results()
    best = _best_point(search, points)
    if as_json:
        _print_json(batch, points, best)
    elif points:
        _print(batch, points, best, search)
    if isinstance(stopped, WattbenchError):
        raise stopped
    if stopped is not None:
        raise interruption(batch, stopped)
    if best is None:
        raise WattbenchError("no load met the service level with a valid energy; see the table")


def _best_point(search: LoadSearch, points: list[PointResult]) -> PointResult | None:
    best = search.best()
    if best is None:
        return None
    return next(point for point in points if _users(point) == best.concurrency)


def _users(point: PointResult) -> int:
    return int(str(point.facts.runs[0].raw.record.operating_point["concurrency"]))


def _print_json(batch: Batch, points: list[PointResult], best: PointResult | None) -> None:
    shown = document(points, batch.database)
    at = None if best is None else points.index(best)
    click.echo(json.dumps(shown | {"best": at}, allow_nan=False))


def _print(
    batch: Batch, points: list[PointResult], best: PointResult | None, search: LoadSearch
) -> None:
    out = console()
    out.print(f"[bold]{len(search.trials)} loads tried[/]")
    for trial in sorted(search.trials, key=lambda one: one.concurrency):
        value = "–" if trial.tokens_per_joule is None else number(trial.tokens_per_joule)
        level = ""
        if trial.margin_fractions:
            state = "meets" if trial.worst_fraction < 1 else "misses"
            worst = f"worst latency {trial.worst_fraction:.0%} of its limit"
            level = f", {state} the service level ({worst})"
        mark = "→" if best is not None and trial.concurrency == _users(best) else " "
        out.print(f" {mark} concurrency {trial.concurrency:>5}: {value} tokens/J{level}")
    if best is not None:
        out.print()
        print_points([best])
    out.print(f"\nDatabase: {batch.database}\nAgain:    {show_line(batch)}", soft_wrap=True)
