"""``wattbench run``: measure a workload on a backend, and print what can be concluded."""

from __future__ import annotations

import json
import shlex
from typing import Any

import click
from rich.console import Console

from wattbench.cli.batch import Batch, Request, prepare
from wattbench.cli.options import (
    calibration_option,
    database_option,
    json_option,
    require_valid_option,
)
from wattbench.cli.tables import print_points, require_valid
from wattbench.core.errors import WattbenchError
from wattbench.results import PointResult, document, evaluate
from wattbench.store import connect, load_run

MAX_CONCURRENCY = 100_000


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


def _devices(
    _context: click.Context, _option: click.Parameter, text: str
) -> tuple[str, ...] | None:
    return None if text == "auto" else tuple(part.strip() for part in text.split(","))


def _roles(
    _context: click.Context, _option: click.Parameter, texts: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """``ROLE=[HOST:]0-3,5`` as devices by role."""
    roles: dict[str, tuple[str, ...]] = {}
    for text in texts:
        role, equals, places = text.partition("=")
        host, colon, ids = places.rpartition(":")
        devices = [device for part in ids.split(",") for device in _span(part.strip())]
        if not (equals and role.isidentifier() and all(devices)):
            raise click.BadParameter(
                f"{text!r} is not ROLE=[HOST:]ID,… such as prefill=node1:0-3 or decode=4,5"
            )
        where = f"{host}/" if colon else ""
        roles[role] = roles.get(role, ()) + tuple(f"{where}{device}" for device in devices)
    return roles


def _span(part: str) -> list[str]:
    """``2-4`` as 2, 3, 4; anything else as it is."""
    first, dash, last = part.partition("-")
    if dash and first.isdecimal() and last.isdecimal() and int(first) <= int(last) < 1024:
        return [str(number) for number in range(int(first), int(last) + 1)]
    return [part]


@click.command(name="run")
@click.argument("workload", metavar="WORKLOAD")
@click.option(
    "--backend",
    default="openvino",
    show_default=True,
    metavar="NAME[,KEY=VALUE…]",
    help="Engine and its options; `wattbench list backends` shows them.",
)
@click.option(
    "--hardware",
    metavar="PROFILE",
    help="Machine profile: a shipped name or a YAML file.  [default: the backend's choice]",
)
@click.option(
    "--meter",
    "meters",
    multiple=True,
    metavar="NAME[,KEY=VALUE…]",
    help="Meter and its options, may be repeated; `wattbench list meters` shows them; `none` "
    "measures no energy.  [default: the backend's choice]",
)
@click.option(
    "--devices",
    default="auto",
    show_default=True,
    callback=_devices,
    metavar="ID,…|auto",
    help="Devices that are charged for the work, by name, index or domain; auto: all measured.",
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    callback=_roles,
    metavar="ROLE=[HOST:]ID,…",
    help="Devices by what they do in a split deployment, such as prefill=node1:0-3; may be "
    "repeated. Their joules are kept apart.",
)
@click.option(
    "--concurrency",
    callback=_concurrencies,
    metavar="N,…",
    help="Users of a closed loop, one operating point each.  [default: the workload's]",
)
@click.option(
    "--repeats",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Runs of each operating point.",
)
@click.option(
    "--slo",
    metavar="NAME:pNN<LIMIT,…",
    help='Service level, as in "ttft:p95<500ms,tpot:p95<50ms".  [default: the workload\'s]',
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Seed.  [default: the workload's]")
@click.option("--tag", help="A mark to find the runs by.")
@calibration_option
@database_option
@json_option
@require_valid_option
@click.option("--quiet", is_flag=True, help="No progress display.")
def command(
    *,
    database: str | None,
    as_json: bool,
    must_be_valid: bool,
    quiet: bool,
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
    """  # noqa: D301 - click reads the backslash
    batch = prepare(Request(**asked), database)
    stopped = batch.carry_out(_console(show=not (as_json or quiet)))
    points = _report(batch, as_json=as_json)
    if isinstance(stopped, WattbenchError):
        raise stopped
    if stopped is not None and not batch.run_ids:
        raise WattbenchError("interrupted before anything was measured")
    if stopped is not None:
        raise WattbenchError(f"interrupted. What was measured is kept: `{_show_line(batch)}`")
    if must_be_valid:
        require_valid(points)


def _show_line(batch: Batch) -> str:
    """The command that shows these runs again, to be pasted."""
    return shlex.join(["wattbench", "show", batch.batch_id, "--db", batch.database])


def _console(*, show: bool) -> Console | None:
    console = Console(stderr=True)
    return console if show and console.is_terminal else None


def _report(batch: Batch, *, as_json: bool) -> list[PointResult]:
    """Print the results of the runs begun, computed from what lies in the database."""
    if not batch.run_ids:
        return []
    engine = connect(batch.url, create=False)
    try:
        points = evaluate(load_run(engine, run_id) for run_id in sorted(batch.run_ids))
    finally:
        engine.dispose()
    if as_json:
        click.echo(json.dumps(document(points, batch.database), allow_nan=False))
        return points
    answered = [point for point in points if any(run.raw.requests for run in point.facts.runs)]
    if answered:
        print_points(answered)
        click.echo(f"\nDatabase: {batch.database}\nAgain:    {_show_line(batch)}")
    return points
