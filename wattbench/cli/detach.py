"""``wattbench detach``: takes a log out again that was attached to stored runs."""

from __future__ import annotations

import json

import click

from wattbench.cli.options import database_option, json_option
from wattbench.core.errors import UsageError
from wattbench.core.run import Event
from wattbench.metrics import ATTACHED
from wattbench.store import connect, database_url, load_run, remove_domain, select_runs


@click.command(name="detach")
@click.argument("selector", metavar="RUN")
@click.argument("name", metavar="DOMAIN")
@database_option
@json_option
def command(selector: str, name: str, database: str | None, as_json: bool) -> None:
    """Take DOMAIN, which `wattbench attach` added, out of RUN again.

    Only what was attached can be taken out; what a run measured itself stays. An event in the run
    keeps that it was done.
    """
    engine = connect(database_url(database), create=True)
    try:
        runs = [load_run(engine, run.run_id) for run in select_runs(engine, selector)]
        for raw in runs:
            meters = {trace.domain.name: trace.domain.meter for trace in raw.traces}
            if meters.get(name) != ATTACHED:
                attached = [domain for domain, meter in meters.items() if meter == ATTACHED]
                raise UsageError(
                    f"run {raw.record.run_id} has no attached domain {name!r} (attached are: "
                    f"{', '.join(attached) or 'none'})"
                )
        for raw in runs:
            event = Event(kind="log_detached", time_s=0.0, detail={"domain": name})
            remove_domain(engine, raw.record.run_id, name, event)
    finally:
        engine.dispose()
    done = [raw.record.run_id for raw in runs]
    if as_json:
        click.echo(json.dumps({"schema_version": 1, "run_ids": done, "domain": name}))
    else:
        click.echo("\n".join(f"{run_id}: {name} is taken out" for run_id in done))
