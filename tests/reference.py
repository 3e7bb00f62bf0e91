"""The reference in ``docs/reference.md``, written from the code that it describes.

Run this file to write it again: ``.venv/bin/python tests/reference.py``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from wattbench import plugins
from wattbench.audit import CHECKS as AUDITS
from wattbench.checks import CHECKS, METER_CHECKS
from wattbench.checks.meters import check_meters
from wattbench.cli.main import cli, main
from wattbench.core import errors
from wattbench.emulator import FAULTS
from wattbench.metrics import LATENCIES, METRICS, QUANTILES, REASONS
from wattbench.plugins import Group, describe_options

PATH = Path(__file__).parents[1] / "docs" / "reference.md"
UPDATE = ".venv/bin/python tests/reference.py"
NOTICE = f"<!-- Written by `{UPDATE}`; change the code, not this file. -->"


def render() -> str:
    """The whole reference, as Markdown."""
    parts = [
        NOTICE,
        "# Reference",
        "Every command, plug-in, metric, finding and exit code. Times are in seconds, energies in "
        "joules, powers in watts, unless a name says otherwise.",
        "## Commands",
        *(part for context in contexts() for part in _command(context)),
        *_plugins("backends", "Backends"),
        *_plugins("meters", "Meters"),
        *_plugins("policies", "Routing policies"),
        *_metrics(),
        *_findings(),
        *_exit_codes(),
    ]
    return "\n\n".join(parts) + "\n"


def contexts() -> Iterator[click.Context]:
    """The command line and each of its commands, as if called."""
    yield from _contexts(cli, "wattbench", None)


def _contexts(
    command: click.Command, name: str, parent: click.Context | None
) -> Iterator[click.Context]:
    context = click.Context(command, info_name=name, parent=parent, **command.context_settings)
    yield context
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None, f"command {child} is listed but not there"
            yield from _contexts(found, child, context)


def _command(context: click.Context) -> Iterator[str]:
    command = context.command
    yield f"### `{context.command_path}`"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{context.command_path} {usage}\n```"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        preformatted = paragraph.removeprefix("\b\n")
        yield paragraph if preformatted == paragraph else f"```text\n{preformatted}\n```"
    options = [p for p in command.get_params(context) if isinstance(p, click.Option)]
    records = [option.get_help_record(context) for option in options]
    yield _table(("option", "meaning"), [(f"`{r[0]}`", r[1]) for r in records if r])


def _plugins(group: Group, title: str) -> Iterator[str]:
    yield f"## {title}"
    one = plugins.SINGULAR[group]
    yield f"`--{one} NAME[,KEY=VALUE…]`; a value with commas stands in quotes."
    for name in plugins.names(group):
        plugin = plugins.find(group, name)
        if not plugin.__module__.startswith("wattbench."):
            continue
        yield f"### {one.title()} `{name}`"
        yield _first_paragraph(plugin)
        rows = [
            (f"`{option['name']}`", option["type"], f"`{option['default']}`", option["help"])
            for option in describe_options(plugin.Options)
        ]
        if rows:
            yield _table(("key", "type", "default", "meaning"), rows)


def _metrics() -> Iterator[str]:
    yield "## Metrics"
    yield "Ratios over the measurement window:"
    yield _table(
        ("name", "unit", "formula", "better", "source"),
        [(f"`{m.name}`", m.unit, m.formula, m.better, m.source) for m in METRICS],
    )
    yield f"Latencies of successful requests, as {', '.join(QUANTILES)}:"
    yield _table(
        ("name", "unit", "formula", "better", "source"),
        [(f"`{m.name}`", "s", m.formula, "lower", m.source) for m in LATENCIES],
    )
    yield "A value or an interval that is missing says why:"
    yield _table(("reason", "meaning"), [(f"`{code}`", why) for code, why in REASONS.items()])


def _findings() -> Iterator[str]:
    yield "## Findings"
    yield "Reasons to doubt a result, by their codes:"
    point_checks = [check for check in CHECKS if check is not check_meters]
    yield "\n".join(f"- {_text(inspect.getdoc(check))}" for check in point_checks)
    yield "The meters themselves, from their raw samples:"
    yield "\n".join(f"- {_text(inspect.getdoc(check))}" for check in METER_CHECKS)
    yield "Of `wattbench audit`, about the figures of a file:"
    yield "\n".join(f"- {_text(inspect.getdoc(check))}" for check in AUDITS)
    yield "## Faults of the emulated sensors"
    yield "`wattbench emulate --fault KIND[,parameter=value…]` and `--backend emulated,fault=KIND`:"
    yield _table(
        ("kind", "what happens", "finding", "parameters, drawn from"),
        [(f"`{k}`", f.about, f"`{f.code}`", _ranges(f.ranges)) for k, f in FAULTS.items()],
    )


def _ranges(ranges: Mapping[str, tuple[float, float]]) -> str:
    return ", ".join(f"{name} {low:g} … {high:g}" for name, (low, high) in ranges.items())


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes"
    yield _text(inspect.getdoc(main))
    raised = [
        found
        for found in vars(errors).values()
        if isinstance(found, type) and issubclass(found, errors.WattbenchError)
    ]
    rows = [(f"`{e.__name__}`", str(e.exit_code), _first_paragraph(e)) for e in raised]
    yield _table(("error", "exit code", "meaning"), rows)


def _first_paragraph(documented: Any) -> str:
    return _text((inspect.getdoc(documented) or "").split("\n\n")[0])


def _text(docstring: str | None) -> str:
    return " ".join((docstring or "").split()).replace("``", "`")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header)]
    lines += [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(render(), encoding="utf-8")
