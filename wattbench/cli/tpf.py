"""``wattbench tpf``: the Token Production Function, one module per subcommand."""

from __future__ import annotations

import importlib

import click

SUBCOMMANDS = {
    "fit": "Fit joules per token against concurrency over many sweeps; try it on left-out points.",
    "predict": "Joules per token, rate and power of a point, measured or not, with a 90 % band.",
    "ceilings": "What a site's power and a machine's compute allow, and which of them binds.",
    "levers": "Published what-ifs as multipliers, each with its source and its cost in quality.",
    "checklist": "What a benchmark should report of each run, in one table.",
}


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        command: click.Command = importlib.import_module(f"wattbench.cli.tpf_{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUBCOMMANDS.items()))


@click.group(name="tpf", cls=_Group)
def command() -> None:
    """The Token Production Function: which constraint binds, and what a token costs in joules.

    \b
      token rate = min(compute / FLOP per token, θ · IT power / joules per token) · Φ · U
    """  # noqa: D301 - click reads the backslash
