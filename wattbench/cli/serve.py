"""``wattbench serve``: an embedded engine behind an OpenAI API."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import click

from wattbench import plugins
from wattbench.core.errors import UsageError
from wattbench.core.protocols import Backend
from wattbench.plugins import PluginContext, PluginSpec, parse_options, parse_spec


@click.command(name="serve")
@click.option(
    "--backend",
    "asked",
    default="openvino",
    show_default=True,
    metavar="NAME[,KEY=VALUE…]",
    help="Engine and its options; wattbench list backends tells which there are.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port on the loopback interface; 0 picks a free one.",
)
@click.option("--model-name", metavar="NAME", help="Name to serve it by.  [default: the model's]")
def command(asked: str, port: int, model_name: str | None) -> None:
    """Give an embedded engine an OpenAI API on the loopback interface, until Ctrl-C.

    Any load generator can then drive it: /v1/completions, /v1/chat/completions, /v1/models,
    /metrics, /health. One line `ready URL` says that it accepts. Decoding is greedy; a chat has
    no template. `ignore_eos`, or `min_tokens` equal to `max_tokens`, fixes an answer's length.
    """
    backend = _backend(parse_spec(asked))
    asyncio.run(_serve(backend, port, model_name, lambda url: click.echo(f"ready {url}")))


def _backend(spec: PluginSpec) -> Backend:
    backend_class = plugins.find("backends", spec.name)
    fields = {field.name for field in dataclasses.fields(backend_class.Options)}
    if "stream_text" not in fields:
        raise UsageError(
            f"{spec.name} gives no text to serve; an embedded engine such as openvino does "
            "(an emulated machine is served by `wattbench emulate`)"
        )
    if (why_not := backend_class.availability()) is not None:
        raise UsageError(f"{spec.name} cannot work here: {why_not}")
    values: dict[str, Any] = {"stream_text": "true"} | dict(spec.values)
    options = parse_options(dataclasses.replace(spec, values=values), backend_class.Options)
    backend: Backend = backend_class(options, PluginContext(hardware=None, seed=0))
    return backend


async def _serve(
    backend: Backend, port: int, model_name: str | None, on_ready: Callable[[str], None]
) -> None:
    from wattbench.openai_api.loopback import serve
    from wattbench.serving import BackendServer

    try:
        info = await backend.open()
        server = BackendServer(backend, model_name or info.model)
        await serve(server.application(), port, on_ready)
    finally:
        await backend.close()
