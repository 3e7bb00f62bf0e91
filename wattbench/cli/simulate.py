"""``wattbench simulate``: what each routing policy makes of a trace and a fleet."""

from __future__ import annotations

import atexit
import importlib.metadata
import itertools
import json
import platform
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from wattbench import __version__, simulation
from wattbench.cli.options import database_option, json_option
from wattbench.cli.simulate_calibrate import (
    calibrate_from_log,
    calibrate_from_runs,
    check_out,
    log_of,
    print_calibration,
)
from wattbench.cli.simulate_text import print_simulation
from wattbench.cli.stored import load_runs
from wattbench.core.errors import DocumentError, UsageError
from wattbench.documents import yaml_value
from wattbench.simulation import (
    Outcome,
    Scenario,
    compile_kernels,
    is_compiled,
    load_scenario,
    plan_of,
    play,
    requests_of,
    scenario_text,
)
from wattbench.store import (
    URL,
    StoredSimulation,
    check_place,
    connect,
    database_url,
    save_simulation,
    show_url,
)
from wattbench.traces.formats import FORMATS

MAX_CASES = 1000
RUNS = "runs:"
Changes = dict[str, Any]


@click.command(name="simulate")
@click.argument("scenario", metavar="SCENARIO", required=False)
@click.option(
    "--trace",
    metavar="FILE|SPEC|runs:SELECTOR",
    help="In place of the scenario's: docs/traces.md; runs: the requests of stored runs.",
)
@click.option("--trace-format", type=click.Choice(FORMATS), help="What the file of --trace is.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="A,B…",
    help="In place of the scenario's; options follow a name, as in cost,ttft_s=1. May be repeated.",
)
@click.option("--seeds", type=click.IntRange(1, 10_000), help="How many, in place of its own.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="A value of the scenario, such as pools.gpu.count=8 or router.signals_every_s=1.",
)
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="KEY=V1,V2,…",
    help="Several values of one key, each with all policies; may be repeated.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    help="Processes; the results are the same.  [default: 1, or all processors for a large one]",
)
@click.option(
    "--requests",
    "requests_file",
    metavar="FILE.csv",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Every request with its times, machine and latencies.",
)
@click.option(
    "--calibrate-from",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Fit a step model to an engine's log of requests (JSONL), in place of a scenario.",
)
@click.option(
    "--calibrate-runs",
    metavar="SELECTOR",
    help="Fit a step model and its energy to stored runs, as --runs names them elsewhere.",
)
@click.option(
    "--engine",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="With these: limits of the engine, JSON: max_num_seqs, max_num_batched_tokens, …",
)
@click.option(
    "--out",
    metavar="FILE.json",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With these: write what a pool names under calibration:.",
)
@database_option
@json_option
def command(
    scenario: str | None,
    *,
    requests_file: Path | None,
    workers: int | None,
    database: str | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Route a trace over a fleet of machines, by several policies.

    SCENARIO is a shipped name or a YAML file (docs/simulation.md): sites, pools of machines, a
    trace, policies and a service level. Every policy meets the same requests. Joules stand beside
    latency and service level: a policy that saves energy by making users wait has saved nothing.

    The result is kept in the database: `wattbench list simulations`, `wattbench show simulation`.
    """
    if asked["calibrate_from"] is not None or asked["calibrate_runs"] is not None:
        _calibrate(scenario, asked, database, as_json=as_json)
        return
    if asked["engine"] is not None or asked["out"] is not None:
        raise UsageError("--engine and --out belong to --calibrate-from or --calibrate-runs")
    if scenario is None:
        raise UsageError("name a scenario: a YAML file, or one of `wattbench list scenarios`")
    if requests_file is not None:
        _check_new(requests_file)
    url = database_url(database)
    written = asked["trace"]
    if str(written or "").startswith(RUNS):
        asked["trace"] = _of_runs(written.removeprefix(RUNS), url)
    changes = _changes(asked)
    sweep = _sweep(asked["sweeps"], changes)
    text = scenario_text(scenario)
    cases = [(values, _loaded(scenario, {**changes, **values})) for values in sweep]
    check_place(url)
    _compiled()
    shown_cases, rows = _all_played(cases, workers, keep=requests_file is not None)
    first = cases[0][1]
    shown = {
        "schema_version": 1,
        "simulation_id": f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}",
        "scenario": first.name,
        "about": first.about,
        "set": changes if written is None else {**changes, "trace": written},
        "versions": _versions(),
        "cases": shown_cases,
    }
    _keep(url, text, shown, first.seed_list()[0])
    if requests_file is not None:
        _write(requests_file, rows)
    shown["database"] = show_url(url)
    if as_json:
        click.echo(json.dumps(shown, allow_nan=False))
    else:
        print_simulation(shown)


def _all_played(
    cases: list[tuple[Changes, Scenario]], workers: int | None, *, keep: bool
) -> tuple[list[dict[str, Any]], str]:
    """Each case's result, and the table of all requests, empty unless it is kept."""
    shown: list[dict[str, Any]] = []
    rows: list[str] = []
    for values, case in cases:
        outcome = _played(case, workers, keep=keep)
        shown.append({"sweep": values, **simulation.as_json(outcome)})
        if keep:
            rows.append(_rows(outcome, values, header=not rows))
    return shown, "".join(rows)


def _calibrate(
    scenario: str | None, asked: Mapping[str, Any], database: str | None, *, as_json: bool
) -> None:
    log, runs = asked["calibrate_from"], asked["calibrate_runs"]
    if scenario is not None or (log is not None and runs is not None):
        raise UsageError("give one of SCENARIO, --calibrate-from and --calibrate-runs")
    check_out(asked["out"])
    url = database_url(database)
    _compiled()
    if log is not None:
        shown = calibrate_from_log(log, asked["engine"], asked["out"])
    else:
        shown = calibrate_from_runs(runs, url, asked["engine"], asked["out"])
    if as_json:
        click.echo(json.dumps(shown, allow_nan=False))
    else:
        print_calibration(shown)


def _changes(asked: Mapping[str, Any]) -> Changes:
    """What the command line puts in place of the scenario's values, by dotted key."""
    changes: Changes = {}
    for text in asked["sets"]:
        key, equals, value = text.partition("=")
        if not equals or not key or key in changes:
            raise UsageError(f"--set {text}: write KEY=VALUE, each key once, as in seeds=5")
        changes[key] = yaml_value(value, f"--set {key}")
    if asked["trace"] is not None:
        changes["trace"] = _trace(asked["trace"], asked["trace_format"])
    elif asked["trace_format"] is not None:
        raise UsageError("--trace-format says what the file of --trace is; name one")
    if asked["policies"]:
        changes["policies"] = [name for text in asked["policies"] for name in _policies(text)]
    if asked["seeds"] is not None:
        changes["seeds"] = asked["seeds"]
    return changes


def _of_runs(selector: str, url: URL) -> str:
    """The requests of stored runs, one run after the other, as a file of a trace."""
    rows, start_s = ["time_s,input_tokens,output_tokens"], 0.0
    for raw in load_runs(url, selector):
        log = log_of(raw)
        for at_s, prompt, answer in zip(
            log.queued_s, log.input_tokens, log.output_tokens, strict=True
        ):
            rows.append(f"{start_s + at_s:.9f},{prompt},{answer}")
        start_s += float(max(log.queued_s.max(), np.nanmax(log.last_s)))
    folder = tempfile.mkdtemp(prefix="wattbench-")
    path = Path(folder) / "requests-of-runs.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(path)


def _trace(text: str, trace_format: str | None) -> dict[str, Any]:
    """Paths of the command line are relative to here, those of a scenario to its file."""
    for path in (text, text.partition(",")[0]):
        if Path(path).is_file():
            text = text.replace(path, str(Path(path).absolute()), 1)
            break
    return {"spec": text} | ({} if trace_format is None else {"format": trace_format})


def _policies(text: str) -> list[str]:
    """``A,B,key=value,C`` as names, each with the options that follow it."""
    found: list[str] = []
    for part in text.split(","):
        if "=" in part and found:
            found[-1] += f",{part}"
        else:
            found.append(part.strip())
    return found


def _sweep(texts: tuple[str, ...], changes: Changes) -> list[Changes]:
    """Every combination of swept values; one without any if nothing is swept."""
    values: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, listed = text.partition("=")
        found = [each.strip() for each in listed.split(",")]
        if not equals or not key or key in values or not all(found):
            raise UsageError(f"--sweep {text}: write KEY=V1,V2,…, as in trace.rate=1,2,4")
        if key in changes:
            raise UsageError(f"--sweep {key}=… and {key} set as well: leave one out")
        values[key] = [yaml_value(each, f"--sweep {key}") for each in found]
    combinations = list(itertools.product(*values.values()))
    if len(combinations) > MAX_CASES:
        raise UsageError(f"--sweep: {len(combinations)} cases; at most {MAX_CASES}")
    return [dict(zip(values, each, strict=True)) for each in combinations]


def _loaded(scenario: str, changes: Changes) -> Scenario:
    try:
        return load_scenario(scenario, changes)
    except DocumentError as error:
        if not changes:
            raise
        put = ", ".join(f"{key} = {value}" for key, value in changes.items())
        raise DocumentError(f"{error} (as changed: {put})") from error


def _compiled() -> None:
    if not is_compiled():
        click.echo("compiling the simulator (once; some 40 s)…", err=True)
    compile_kernels()


def _played(scenario: Scenario, workers: int | None, *, keep: bool) -> Outcome:
    with _bar() as report:
        return play(plan_of(scenario), workers=workers, keep_requests=keep, progress=report)


@contextmanager
def _bar() -> Iterator[Any]:
    """A bar on a terminal; what is to be told how far it is."""
    err = Console(stderr=True)
    if not err.is_terminal:
        yield None
        return
    columns = (TextColumn("simulating"), BarColumn(), TextColumn("{task.completed:,.0f} requests"))
    with Progress(*columns, TimeRemainingColumn(), console=err, transient=True) as bar:
        task = bar.add_task("")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _check_new(path: Path) -> None:
    """A CSV is replaced by a CSV only, and by nothing until the simulation is done.

    Raises:
        UsageError: If something else lies there.
    """
    if path.suffix.lower() != ".csv":
        raise UsageError(f"--requests {path}: the file's name must end in .csv")
    if not path.parent.is_dir():
        raise UsageError(f"--requests {path}: cannot be written: there is no such folder")
    if path.exists() and not _is_ours(path):
        raise UsageError(
            f"--requests {path}: a file lies there that no simulation wrote; name another one"
        )


def _is_ours(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            return "policy,seed,request," in file.readline(10_000)
    except (OSError, UnicodeDecodeError):
        return False


def _rows(outcome: Outcome, values: Changes, *, header: bool) -> str:
    parts: list[str] = []
    for played in outcome.played:
        frame = requests_of(played)
        for key, value in reversed(values.items()):
            frame.insert(0, key, str(value))
        parts.append(frame.to_csv(index=False, header=header and not parts))
    return "".join(parts)


def _write(path: Path, text: str) -> None:
    """Beside it first, then in its place: what lies there is lost only when all is written."""
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise UsageError(f"--requests {path}: cannot be written: {error.strerror}") from error


def _versions() -> dict[str, str]:
    libraries = {name: importlib.metadata.version(name) for name in ("numba", "numpy")}
    return {"wattbench": __version__, "python": platform.python_version(), **libraries}


def _keep(url: Any, text: str, shown: dict[str, Any], seed: int) -> None:
    engine = connect(url, create=True)
    try:
        save_simulation(
            engine,
            StoredSimulation(
                simulation_id=shown["simulation_id"],
                created_unix_s=time.time(),
                scenario=text,
                result=shown,
                versions=shown["versions"],
                seed=seed,
            ),
        )
    finally:
        engine.dispose()
