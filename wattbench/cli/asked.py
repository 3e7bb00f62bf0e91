"""What `run` and `search` ask alike: engine, machine, meters, devices, and where it is stored."""

from __future__ import annotations

import click

from wattbench.cli.options import (
    FiniteRange,
    calibration_option,
    database_option,
    json_option,
    together,
)


def devices(_context: click.Context, _option: click.Parameter, text: str) -> tuple[str, ...] | None:
    """``ID,…`` or ``auto``."""
    return None if text == "auto" else tuple(part.strip() for part in text.split(","))


def roles(
    _context: click.Context, _option: click.Parameter, texts: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """``ROLE=[HOST:]0-3,5`` as devices by role."""
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        role, equals, places = text.partition("=")
        host, colon, ids = places.rpartition(":")
        named = [device for part in ids.split(",") for device in _span(part.strip())]
        once = len(set(named)) == len(named)
        if not (equals and role.isidentifier() and all(named) and once):
            raise click.BadParameter(
                f"{text!r} is not ROLE=[HOST:]ID,… such as prefill=node1:0-3 or decode=4,5"
            )
        where = f"{host}/" if colon else ""
        taken = {device for others in found.values() for device in others}
        if twice := [device for device in named if f"{where}{device}" in taken]:
            raise click.BadParameter(f"{text!r}: device {twice[0]} has a role already")
        found[role] = found.get(role, ()) + tuple(f"{where}{device}" for device in named)
    return found


def _span(part: str) -> list[str]:
    """``2-4`` as 2, 3, 4; anything else as it is."""
    first, dash, last = part.partition("-")
    if dash and first.isdecimal() and last.isdecimal() and int(first) <= int(last) < 1024:
        return [str(number) for number in range(int(first), int(last) + 1)]
    return [part]


asked_options = together(
    click.argument("workload", metavar="WORKLOAD"),
    click.option(
        "--backend",
        default="openvino",
        show_default=True,
        metavar="NAME[,KEY=VALUE…]",
        help="Engine and its options; `wattbench list backends` shows them.",
    ),
    click.option(
        "--serve",
        metavar="COMMAND",
        help="Start this server for the run and stop it after; {port} is a free port, {KEY} what "
        "--sweep serve.KEY=… says. Its log is kept beside the database.",
    ),
    click.option(
        "--serve-timeout-s",
        type=FiniteRange(1, 86400),
        default=600.0,
        show_default=True,
        help="Longest wait until it answers.",
    ),
    click.option(
        "--hardware",
        metavar="PROFILE",
        help="Machine profile: a shipped name or a YAML file.  [default: the backend's choice]",
    ),
    click.option(
        "--meter",
        "meters",
        multiple=True,
        metavar="NAME[,KEY=VALUE…]",
        help="Meter and its options, may be repeated; `wattbench list meters` shows them; `auto` "
        "takes this machine's sensors, else its CPU load, if the engine runs here; `none` measures "
        "no energy.  [default: the backend's choice]",
    ),
    click.option(
        "--devices",
        default="auto",
        show_default=True,
        callback=devices,
        metavar="ID,…|auto",
        help="Devices that are charged, by name, index or domain; auto: those that work.",
    ),
    click.option(
        "--role",
        "roles",
        multiple=True,
        callback=roles,
        metavar="ROLE=[HOST:]ID,…",
        help="Devices by what they do in a split deployment, such as prefill=node1:0-3; may be "
        "repeated. Their joules are kept apart.",
    ),
    click.option(
        "--slo",
        metavar="NAME:pNN<LIMIT,…",
        help='Service level, as in "ttft:p95<500ms,tpot:p95<50ms".  [default: the workload\'s]',
    ),
    click.option(
        "--seed", type=click.IntRange(0, 2**63 - 1), help="Seed.  [default: the workload's]"
    ),
    click.option("--tag", help="A mark to find the runs by."),
    calibration_option,
    database_option,
    json_option,
    click.option("--quiet", is_flag=True, help="No progress display."),
)
"""The argument and the options that every measuring command has."""
