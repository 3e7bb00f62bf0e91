"""``wattbench agent``: streams this host's meters to a `wattbench run` somewhere else."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import os
from typing import Any

import click

from wattbench.cli.sensors import build_meter, default_sensors, meter_spec
from wattbench.core.errors import UsageError
from wattbench.meters.agent_wire import DEFAULT_PORT, TOKEN_ENV
from wattbench.plugins import PluginContext


@click.command(name="agent")
@click.option(
    "--meter",
    "meters",
    multiple=True,
    metavar="NAME[,KEY=VALUE…]",
    help="Meter to stream, may be repeated.  [default: every sensor found]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port; 0 picks a free one.",
)
@click.option(
    "--token-env",
    default=TOKEN_ENV,
    show_default=True,
    metavar="NAME",
    help="Environment variable with a token that clients must show.",
)
@click.option("--tls-cert", type=click.Path(), help="Certificate chain, PEM; turns TLS on.")
@click.option("--tls-key", type=click.Path(), help="Its private key, PEM.")
@click.option(
    "--skew-s",
    type=float,
    default=0.0,
    help="Put the agent's clocks wrong by this [s], to test what that does.",
)
def command(*, meters: tuple[str, ...], host: str, port: int, token_env: str, **asked: Any) -> None:
    """Stream this host's meters to a load generator on another machine, until Ctrl-C.

    It listens on the loopback interface unless told otherwise, and elsewhere only with a token.
    One line `ready URL` says that it accepts. Over there:

    \b
    Examples:
      wattbench agent --host 0.0.0.0            (with WATTBENCH_AGENT_TOKEN set)
      wattbench run chat-open --backend openai,url=http://HOST:8000/v1 \\
        --meter agent,url=http://HOST:9467
    """  # noqa: D301 - click reads the backslash
    from wattbench.meters.agent_server import AgentServer, serve_agent

    token = os.environ.get(token_env) or None
    if token is None and not _is_loopback(host):
        raise UsageError(
            f"--host {host} is open to the network and there is no token; set one first: "
            f"export {token_env}=$(openssl rand -hex 16)"
        )
    if not math.isfinite(asked["skew_s"]):
        raise UsageError(f"--skew-s {asked['skew_s']} is no time")
    if (asked["tls_cert"] is None) != (asked["tls_key"] is None):
        raise UsageError("--tls-cert and --tls-key belong together")
    context = PluginContext(hardware=None, seed=0)
    specs = [meter_spec(text) for text in (meters or default_sensors())]
    for spec, options in specs:
        build_meter(spec, options, context)
    server = AgentServer(
        lambda: [build_meter(spec, options, context) for spec, options in specs],
        token,
        asked["skew_s"],
    )
    tls = (asked["tls_cert"], asked["tls_key"]) if asked["tls_cert"] else None
    if tls is None and not _is_loopback(host):
        click.echo("Without TLS the token can be read on the way; see --tls-cert.", err=True)
    asyncio.run(serve_agent(server, host, port, tls, lambda url: click.echo(f"ready {url}")))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
