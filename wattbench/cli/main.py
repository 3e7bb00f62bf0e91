"""The ``wattbench`` command: finds its subcommands by name and imports only the one that runs."""

from __future__ import annotations

import importlib
import keyword
import sys

import click

from wattbench import __version__
from wattbench.core.errors import Interrupted, WattbenchError

COMMANDS = {
    "run": "Measure a workload: joules per token, latency, and how sure both are.",
    "search": "Find the load with the most tokens per joule that meets the service level.",
    "list": "What there is: runs, backends, meters, policies, hardware, models, scenarios, …",
    "show": "Conclude again from raw records; print a machine profile or model, figure by figure.",
    "compare": "Is the difference between two stored results real? Gates for CI.",
    "energy": "Joules of a window from a log of power or of an energy counter.",
    "check": "May the numbers of a stored run be trusted? Verdicts and findings from raw samples.",
    "wrap": "Run another load generator under meters, and join its results to the joules.",
    "import": "Result files of other load generators into the store, in one meaning.",
    "export": "Stored runs as files: this project's own, tables, and other tools' formats.",
    "audit": "Do published figures agree with themselves, and which rankings survive?",
    "tpf": "The Token Production Function: fit, predict, ceilings, levers, checklist.",
    "procure": "What to buy for a site: tokens, joules, $ and carbon, and what to measure first.",
    "simulate": "Route a trace over a fleet: joules, latency, $ and carbon of each policy.",
    "attach": "Add the log of another meter to stored runs, on their clock.",
    "calibrate": "Fit a wall meter to the meters of the devices, over stored runs.",
    "detach": "Take an attached log out of a stored run again.",
    "plot": "Draw stored runs.",
    "serve": "Serve an embedded engine by the OpenAI API, for any load generator.",
    "emulate": "Serve an emulated machine: OpenAI API, Prometheus metrics, and its exact truth.",
    "agent": "Stream this host's meters to a load generator on another machine.",
    "selftest": "How fast and how punctual the load generator is on this machine.",
    "doctor": "What this machine can run and measure, and what to do about the rest.",
}


class LazyGroup(click.Group):
    """A group whose commands live in ``wattbench.cli.NAME`` and are imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        # A module that is named by a word of the language could not be imported elsewhere.
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        module = importlib.import_module(f"wattbench.cli.{name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wattbench")
@click.option("--debug", is_flag=True, help="Show tracebacks; may stand anywhere on the line.")
def cli(debug: bool) -> None:
    """How many joules a token costs, how sure that number is, and what to do about it."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    0: done; 1: a run failed or was refused; 2: bad usage; 3: a comparison crossed its gate;
    130: Ctrl-C.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        # Not in click's standalone mode, which answers Ctrl-C with 1 and "Aborted!".
        code = cli.main(arguments, prog_name="wattbench", standalone_mode=False)
    except WattbenchError as error:
        if debug:
            raise
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        if debug:
            raise
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        if debug:
            raise
        click.echo("wattbench: interrupted", err=True)
        sys.exit(Interrupted.exit_code)
    sys.exit(code if isinstance(code, int) else 0)
