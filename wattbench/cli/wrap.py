"""``wattbench wrap -- COMMAND``: joules under the load generator that is used already."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from wattbench.cli.asked import devices
from wattbench.cli.batch import stored_options
from wattbench.cli.import_ import load_of
from wattbench.cli.options import FiniteRange, database_option, json_option, require_valid_option
from wattbench.cli.sensors import build_meter, default_sensors, demand_source, meter_spec
from wattbench.cli.tables import print_points, require_valid
from wattbench.cli.wrap_results import candidates, loads_written
from wattbench.core.errors import Interrupted, UsageError, WattbenchError
from wattbench.core.protocols import Meter
from wattbench.core.run import EngineInfo, Event, Mode, RawRun, RunRecord
from wattbench.hardware import MachineProfile, is_this_machine, load_profile
from wattbench.interchange.results import Document, Envelope, ImportedRun, window_events
from wattbench.plugins import PluginContext
from wattbench.results import document, evaluate
from wattbench.runner import Wrapped, enclose, environment, run_async
from wattbench.store import (
    URL,
    ImportedLoad,
    StoreWriter,
    add_imported,
    check_place,
    connect,
    database_url,
    join_imported,
    load_run,
    show_url,
)

_ADDRESS = re.compile(r"https?://[^\s,;'\"]+")


@click.command(
    name="wrap", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("line", metavar="-- COMMAND…", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--meter",
    "meters",
    multiple=True,
    metavar="NAME[,KEY=VALUE…]",
    help="Meter and its options, may be repeated.  [default: auto: this machine's sensors, else "
    "its CPU load]",
)
@click.option(
    "--devices",
    default="auto",
    show_default=True,
    callback=devices,
    metavar="ID,…|auto",
    help="Devices that are charged, by name, index or domain.",
)
@click.option(
    "--idle-s",
    type=FiniteRange(0, 3600),
    default=10.0,
    show_default=True,
    help="Idle of the machine measured before, the engine being up; 0 for none.",
)
@click.option(
    "--results",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Where the tool writes its results.  [default: new files where its command and the "
    "current folder say]",
)
@click.option("--hardware", metavar="NAME", help="Machine profile of the engine's machine.")
@click.option("--tag", help="A mark to find the run by.")
@require_valid_option
@database_option
@json_option
def command(line: tuple[str, ...], *, as_json: bool, must_be_valid: bool, **asked: Any) -> None:
    """Run COMMAND, a load generator, under meters, and join its own results to the joules.

    The energy window is the tool's own measured phase where its files tell when that was, else
    the life of the program, which a finding says. Output, signals and exit code of the program
    pass through; the table comes after on standard error. With --json one object is printed on
    standard output, and the program's own output goes to standard error.

    \b
    Examples:
      wattbench wrap -- aiperf profile -m MODEL --url http://127.0.0.1:8000 --streaming …
      wattbench wrap -- guidellm run …
      wattbench wrap --meter nvml -- vllm bench serve --model MODEL …
    """  # noqa: D301 - click reads the backslash
    try:
        points, where, exit_code = _carried_out(list(line), as_json=as_json, **asked)
    except KeyboardInterrupt as error:  # while the program ran, it was the program's to hear
        raise Interrupted("interrupted; nothing was concluded") from error
    if as_json:
        click.echo(json.dumps(document(points, where) | {"exit_code": exit_code}, allow_nan=False))
    else:
        print_points(points, to_stderr=True)
        run_id = points[0].facts.runs[0].raw.record.batch_id
        again = f"wattbench show {run_id} --db {where}"
        click.echo(f"\nDatabase: {where}\nAgain:    {again}", err=True)
    if must_be_valid and not exit_code:
        require_valid(points)
    sys.exit(exit_code)


def _carried_out(
    line: list[str],
    *,
    as_json: bool,
    meters: tuple[str, ...],
    hardware: str | None,
    database: str | None,
    **asked: Any,
) -> tuple[list[Any], str, int]:
    """The points, where they are stored, and the exit code of the program."""
    if shutil.which(line[0]) is None:
        raise UsageError(f"there is no program {line[0]!r} that can be run; give its path")
    profile = load_profile(hardware) if hardware else None
    local = _on_this_machine(line)
    chosen = _meters(meters, profile, local)
    url = database_url(database)
    check_place(url)
    line = _with_results(line, url)
    record = _record(line, profile, local, chosen, asked)
    engine = connect(url, create=True)
    writer = StoreWriter(engine)
    started_unix_s = time.time()
    if asked["idle_s"]:
        click.echo(f"wattbench: measures idle for {asked['idle_s']:g} s", err=True)
    try:
        wrapped = run_async(
            enclose(
                line,
                record,
                [meter for _, meter in chosen],
                writer,
                idle_s=asked["idle_s"],
                output_fd=2 if as_json else None,
            ),
            virtual=False,
        )
        try:
            others = _join(engine, wrapped, line, asked["results"], started_unix_s)
        except WattbenchError as error:
            writer.finish(wrapped.record.run_id, "failed", str(error))
            raise
        writer.finish(wrapped.record.run_id, "completed", None)
        raw = load_run(engine, wrapped.record.run_id)
        for run, documents in others:
            add_imported(engine, run.record, _beside(raw, run, documents))
        run_ids = [raw.record.run_id, *(run.record.run_id for run, _ in others)]
        points = evaluate([load_run(engine, run_id) for run_id in run_ids])
    finally:
        writer.close()
        engine.dispose()
    return points, show_url(url), wrapped.exit_code


_Others = list[tuple[ImportedRun, tuple[Document, ...]]]


def _join(
    engine: Any,
    wrapped: Wrapped,
    line: Sequence[str],
    results: Sequence[Path],
    started_unix_s: float,
) -> _Others:
    """Give the run the first load of the program's files; the others are runs of their own.

    Where the files say nothing, the window is the program's life.
    """
    origins = [unix_s - run_s for run_s, unix_s in wrapped.anchors_s]
    envelope = Envelope(
        start_s=wrapped.start_s,
        end_s=wrapped.end_s,
        origin_unix_s=sum(origins) / len(origins),
        origin_monotonic_s=wrapped.origin_monotonic_s,
    )
    found, passed = loads_written(candidates(line, results), results, started_unix_s, envelope)
    # A file that grows may begin with older loads, which tell no time: one that does is surer.
    found = [one for one in found if one.measurement.clock is not None] or found
    if not found:
        for why in passed:
            click.echo(f"wattbench: not taken: {why}", err=True)
        none = "no result file could be taken" if passed else "no result file was written"
        click.echo(f"wattbench: {none}; --results says where it lies", err=True)
        events = window_events(wrapped.start_s, wrapped.end_s)
        if passed:
            events += (Event(kind="results_refused", time_s=wrapped.end_s),)
        load = ImportedLoad(requests=(), events=events, reported=(), documents=())
        join_imported(engine, wrapped.record, load)
        return []
    batch_id = wrapped.record.batch_id
    runs = [
        envelope.joined(
            replace(wrapped.record, run_id=f"{batch_id}-p{index:04d}-r0000", point_index=index),
            one.measurement,
            one.documents,
            alone=len(found) == 1,
        )
        for index, one in enumerate(found)
    ]
    join_imported(engine, runs[0].record, load_of(runs[0], found[0].documents))
    return [(run, one.documents) for run, one in zip(runs[1:], found[1:], strict=True)]


def _beside(raw: RawRun, run: ImportedRun, documents: Sequence[Document]) -> ImportedLoad:
    """Another load of the same program: the samples are those of its whole life."""
    load = load_of(run, documents)
    of_a_load = {event.kind for event in load.events} | {"measure_start", "measure_end", "refused"}
    events = [*(event for event in raw.events if event.kind not in of_a_load), *load.events]
    return replace(load, traces=raw.traces, events=events)


def _with_results(line: list[str], url: URL) -> list[str]:
    """The command, told to write its results in detail if it is vLLM's and does not."""
    text = " ".join(line)
    if not re.search(r"\bbench serve\b|benchmark_serving|vllm\.benchmarks", text):
        return line
    extra = []
    if "--save-result" not in line:
        folder = Path(url.database or ".").parent / "wattbench-wrapped"
        folder.mkdir(parents=True, exist_ok=True)
        extra = ["--save-result", "--result-dir", str(folder)]
    if "--save-detailed" not in line:
        extra.append("--save-detailed")
    if extra:
        click.echo(f"wattbench: adds {' '.join(extra)}", err=True)
    return [*line, *extra]


def _on_this_machine(line: Sequence[str]) -> bool | None:
    """Whether the engine that the command names runs here; None if it names none."""
    found = _ADDRESS.search(" ".join(line))
    host = urlsplit(found.group()).hostname if found else None
    if host is None and "--host" in line[:-1]:
        host = line[line.index("--host") + 1]
    return None if host is None else is_this_machine(host)


def _meters(
    asked: Sequence[str], profile: MachineProfile | None, local: bool | None
) -> list[tuple[dict[str, Any], Meter]]:
    names = [name for name in asked if name != "auto"]
    if not asked or "auto" in asked:
        names += _sensors(local)
    chosen = []
    for name in names:
        spec, options = meter_spec(name)
        meter = build_meter(spec, options, PluginContext(hardware=profile, seed=0))
        demand_source(meter)
        chosen.append(({"name": spec.name, "options": stored_options(options)}, meter))
    return chosen


def _sensors(local: bool | None) -> list[str]:
    if local is False:
        raise UsageError(
            "the command names an engine on another machine, of whose watts no sensor here "
            "knows; run `wattbench agent` there and name it with --meter agent,url=…"
        )
    try:
        return default_sensors()
    except WattbenchError:
        return ["cpu-load"]


def _record(
    line: Sequence[str],
    profile: MachineProfile | None,
    local: bool | None,
    meters: Sequence[tuple[dict[str, Any], Meter]],
    asked: dict[str, Any],
) -> RunRecord:
    batch_id = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    return RunRecord(
        run_id=f"{batch_id}-p0000-r0000",
        batch_id=batch_id,
        point_index=0,
        repeat_index=0,
        started_unix_s=0.0,
        virtual_time=False,
        workload={"name": Path(line[0]).name},
        backend={"name": "wrap", "program": Path(line[0]).name, "alignment": "enveloped"},
        engine=EngineInfo(
            model="not told",
            engine="not told",
            tokens_source="usage",
            mode=Mode(),
            on_client_host=local,
        ),
        hardware=profile.model_dump(mode="json") if profile else {},
        meters=tuple(described for described, _ in meters),
        operating_point={},
        seed=0,
        environment=environment(),
        devices=asked["devices"],
        tag=asked["tag"],
    )
