"""``wattbench run``: measure a workload on a backend, and print what can be concluded."""

from __future__ import annotations

import json
import shlex
from typing import Any

import click
from rich.console import Console

from wattbench.cli.asked import asked_options
from wattbench.cli.batch import Batch, MakeSchedule, prepare
from wattbench.cli.options import require_valid_option
from wattbench.cli.schedule import Blocks, Budgeted, Results, Schedule, UntilNarrow
from wattbench.cli.setting import Request, Setting
from wattbench.cli.tables import console, print_points, require_valid
from wattbench.comparison import metric_names
from wattbench.core.errors import Interrupted, UsageError, WattbenchError, did_you_mean
from wattbench.results import PointResult, document

MAX_CONCURRENCY = 100_000
MOST_REPEATS = 20
"""Repeats at which --target-half-width gives up."""


def _concurrencies(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of whole numbers such as 1,2,4") from None
    if not 1 <= min(values) <= max(values) <= MAX_CONCURRENCY or len(set(values)) < len(values):
        raise click.BadParameter(f"{text!r}: each number once, from 1 to {MAX_CONCURRENCY}")
    return values


def _sweep(
    _context: click.Context, _option: click.Parameter, texts: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """``KEY=V1,V2`` as values by key."""
    sweep: dict[str, tuple[str, ...]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        found = tuple(value.strip() for value in values.split(","))
        if not equals or not all(found) or len(set(found)) < len(found) or key in sweep:
            raise click.BadParameter(
                f"{text!r} is not KEY=V1,V2,… with each value once, as in "
                f"backend.precision=bf16,int8"
            )
        sweep[key] = found
    return sweep


def _percent(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    number = text.removesuffix("%").strip()
    try:
        fraction = float(number) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no share such as 2%") from None
    if not 1e-5 <= fraction <= 1:
        raise click.BadParameter(f"{text!r} must be from 0.001% to 100%")
    return fraction


def _duration(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    try:
        limit_s = float(text.rstrip("smh")) * units[text[-1:] if text[-1:] in units else "s"]
    except ValueError:
        raise click.BadParameter(f"{text!r} is no time such as 90s, 20m or 2h") from None
    if not 0 < limit_s <= 1e7:
        raise click.BadParameter(f"{text!r} must be above 0")
    return limit_s


def _metric(_context: click.Context, _option: click.Parameter, name: str) -> str:
    if name not in metric_names():
        hint = did_you_mean(name, metric_names())
        raise click.BadParameter(f"no metric {name!r}{hint}; see docs/reference.md")
    return name


def _schedule(asked: dict[str, Any]) -> MakeSchedule:
    """Takes what concerns the order of runs out of what was asked."""
    width, limit_s, metric = (asked.pop(k) for k in ("target_half_width", "limit_s", "metric"))
    if asked["repeats"] is None:
        asked["repeats"] = 1 if width is None else MOST_REPEATS
    most = int(asked["repeats"])
    if width is not None and most < 3:
        raise UsageError("--target-half-width needs at least 3 --repeats to see their scatter")

    def make(setting: Setting, results: Results) -> Schedule:
        plan: Schedule = Blocks(setting.loads, most, setting.seed)
        if width is not None:
            plan = UntilNarrow(setting.loads, most, setting.seed, metric, width, results)
        return plan if limit_s is None else Budgeted(plan, limit_s)

    return make


def _print_plan(batch: Batch, *, as_json: bool) -> None:
    planned, repeats = batch.planned(), batch.request.repeats
    if as_json:
        shown = {
            "schema_version": 1,
            "points": planned,
            "repeats": repeats,
            "done": [list(place) for place in sorted(batch.done)],
        }
        click.echo(json.dumps(shown))
        return
    out = console()
    for index, point in enumerate(planned):
        load = ", ".join(f"{key} {value}" for key, value in point.items())
        count = sum(place[0] == index for place in batch.done)
        out.print(f"{load}: {repeats} runs" + (f", {count} of them done" if count else ""))


@click.command(name="run")
@click.option(
    "--concurrency",
    callback=_concurrencies,
    metavar="N,…",
    help="Users of a closed loop, one operating point each.  [default: the workload's]",
)
@click.option(
    "--repeats",
    type=click.IntRange(1, 1000),
    help="Runs of each operating point.  [default: 1]",
)
@click.option(
    "--sweep",
    "sweep",
    multiple=True,
    callback=_sweep,
    metavar="KEY=V1,V2,…",
    help="Values of backend.OPTION, workload.KEY or serve.KEY, each opened anew; may be repeated.",
)
@click.option(
    "--target-half-width",
    callback=_percent,
    metavar="N%",
    help="Repeat each point until the scatter of --metric over repeats is this narrow; --repeats "
    "is then the most (20 if it is not given).",
)
@click.option(
    "--metric",
    default="energy_per_output_token_joules",
    show_default=True,
    callback=_metric,
    help="The metric that --target-half-width looks at.",
)
@click.option(
    "--max-time",
    "limit_s",
    callback=_duration,
    metavar="20m",
    help="Begin no further repeat after this; every point is measured once.",
)
@click.option("--resume", metavar="BATCH", help="Go on with a batch that was stopped.")
@click.option("--dry-run", is_flag=True, help="Say what would be run, and run nothing.")
@asked_options
@require_valid_option
def command(
    *,
    database: str | None,
    as_json: bool,
    must_be_valid: bool,
    quiet: bool,
    dry_run: bool,
    resume: str | None,
    **asked: Any,
) -> None:
    """Measure WORKLOAD, a shipped name or a YAML file: joules per token, with a verdict.

    Everything is written to the database while it is measured. Each repeat of each operating
    point is one run; repeats are taken in turn, so that a drift of the machine spreads over all.

    \b
    Examples:
      wattbench run quickstart
      wattbench run quickstart --concurrency 1,4 --repeats 3
      wattbench run quickstart --backend emulated --hardware h100-sxm --json
      wattbench run my.yaml --backend openai,url=http://127.0.0.1:8000/v1
      wattbench run my.yaml --backend openai,url=http://127.0.0.1:{port}/v1 \\
        --serve 'vllm serve MODEL --port {port} -tp {tp}' --sweep serve.tp=1,2,4
      wattbench run quickstart --sweep backend.precision=bf16,int8 --target-half-width 2%
    """  # noqa: D301 - click reads the backslash
    make_schedule = _schedule(asked)
    batch = prepare(Request(**asked), database, make_schedule, resume)
    if dry_run:
        _print_plan(batch, as_json=as_json)
        return
    stopped = batch.carry_out(run_console(show=not (as_json or quiet)))
    points = _report(batch, as_json=as_json)
    if isinstance(stopped, WattbenchError):
        raise stopped
    if stopped is not None:
        raise interruption(batch, stopped)
    if must_be_valid:
        require_valid(points)


def interruption(batch: Batch, stopped: BaseException) -> WattbenchError:
    """What is said of a batch that Ctrl-C or a signal stopped."""
    kind = Interrupted if isinstance(stopped, KeyboardInterrupt) else WattbenchError
    if not batch.run_ids:
        return kind("interrupted before anything was measured")
    return kind(f"interrupted. What was measured is kept: `{show_line(batch)}`")


def show_line(batch: Batch) -> str:
    """The command that shows these runs again, to be pasted."""
    return shlex.join(["wattbench", "show", batch.batch_id, "--db", batch.database])


def run_console(*, show: bool) -> Console | None:
    """Where progress is drawn; None if nobody looks."""
    console = Console(stderr=True)
    return console if show and console.is_terminal else None


def _report(batch: Batch, *, as_json: bool) -> list[PointResult]:
    """Print the results of the runs begun, computed from what lies in the database."""
    if not batch.run_ids:
        return []
    points = batch.results()
    if as_json:
        click.echo(json.dumps(document(points, batch.database), allow_nan=False))
        return points
    answered = [point for point in points if any(run.raw.requests for run in point.facts.runs)]
    if answered:
        print_points(answered)
        click.echo(f"\nDatabase: {batch.database}\nAgain:    {show_line(batch)}")
    return points
