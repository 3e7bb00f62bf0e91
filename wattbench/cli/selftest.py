"""``wattbench selftest``: is this machine's client fast and punctual enough to be believed?"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from wattbench.backends.openai import OpenAIBackend, OpenAIOptions
from wattbench.cli.options import FiniteRange, json_option
from wattbench.cli.tables import console, number
from wattbench.core.errors import WattbenchError
from wattbench.core.run import Json
from wattbench.plugins import PluginContext
from wattbench.runner.selftest import SelfTest, self_test
from wattbench.store import database_url

GAP_S = 0.02
"""Time between chunks of the paced server: 50 tokens/s for each of 32 users."""


@click.command(name="selftest")
@click.option(
    "--duration-s",
    type=FiniteRange(0.2, 60),
    default=2.0,
    show_default=True,
    help="How long each of the four parts takes.",
)
@json_option
def command(duration_s: float, as_json: bool) -> None:
    """Measure the load generator itself against a server of its own that answers at once.

    Requests/s and chunks/s are what one process of wattbench can drive here; a load above half of
    that may measure the client. The result is kept and quoted in the environment of each run.
    """
    found = asyncio.run(_measure(duration_s)).stored() | {"measured_unix_s": time.time()}
    place = _place()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(found))
    except OSError as error:
        click.echo(f"The result could not be kept in {place}: {error.strerror}", err=True)
    if as_json:
        click.echo(json.dumps({"schema_version": 1, **found}))
        return
    _print(found)


async def _measure(duration_s: float) -> SelfTest:
    with _server(0.0) as at_once, _server(GAP_S) as paced:
        backends = [
            OpenAIBackend(OpenAIOptions(url=f"{url}/v1"), PluginContext(hardware=None, seed=0))
            for url in (at_once, paced)
        ]
        try:
            for backend in backends:
                await backend.open()
            return await self_test(backends[0], backends[1], duration_s)
        finally:
            for backend in backends:
                await backend.close()


@contextmanager
def _server(gap_s: float) -> Iterator[str]:
    command = [sys.executable, "-m", "wattbench.emulator.instant", str(gap_s)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        ready = server.stdout.readline().split()
        if len(ready) != 2:
            raise WattbenchError("the server for the self test did not start")
        try:
            yield ready[1]
        finally:
            server.stdin.close()
            server.wait(10)


def _place() -> Path:
    """Beside the usual database, whatever --db says: it is a fact of the machine."""
    return Path(database_url(None).database or ".").parent / "selftest.json"


def last_selftest() -> dict[str, Json] | None:
    """The last result on this machine; None if there is none."""
    try:
        found = json.loads(_place().read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _print(found: dict[str, Any]) -> None:
    out = console()
    rows = (
        ("requests/s", f"{found['requests_per_s']:,.0f}"),
        ("chunks/s", f"{found['chunks_per_s']:,.0f}"),
        ("processors taken", number(found["client_cpu_fraction"])),
        ("stamp lateness p50, p99 ms", _pair(found, "stamp_error")),
        ("schedule lag p50, p99 ms", _pair(found, "schedule_lag")),
    )
    for title, value in rows:
        out.print(f"{title:28s} {value}")


def _pair(found: dict[str, Any], name: str) -> str:
    return ", ".join(number(found[f"{name}_{label}_s"] * 1e3) for label in ("p50", "p99"))
