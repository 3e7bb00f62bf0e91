"""``wattbench emulate``: an emulated machine behind an OpenAI API and a Prometheus page."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import click

from wattbench.core.errors import UsageError
from wattbench.emulator import (
    ANSWER_FAULTS,
    FAULTS,
    AnswerFault,
    EmulatedMachine,
    MachineSettings,
    Sensor,
    SensorOptions,
    make_fault,
)
from wattbench.hardware import load_model, load_profile, roofline
from wattbench.plugins import PluginSpec, parse_options, parse_spec


@click.command(name="emulate")
@click.argument("profile", metavar="PROFILE")
@click.option(
    "--model",
    default="llama-3.1-8b",
    show_default=True,
    help="Model descriptor, or a Hugging Face config.json.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port on the loopback interface; 0 picks a free one.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed.")
@click.option(
    "--sensor",
    default="",
    metavar="KEY=VALUE,…",
    help="How the sensors work: period_s, window_s, gain, offset_watts, quantum_watts, "
    "quantum_joules.  [default: ideal, every 0.1 s]",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND[,KEY=VALUE…]",
    help=f"How the sensors fail, may be repeated: {', '.join(FAULTS)}.",
)
@click.option(
    "--answer-fault",
    "answer_faults",
    multiple=True,
    metavar="KIND[,every=N]",
    help="How each N-th answer fails (5th unless told), may be repeated: "
    f"{', '.join(ANSWER_FAULTS)}.",
)
@click.option(
    "--power",
    default="",
    metavar="KEY=VALUE,…",
    help="How the machine runs: max_batch, prefill_chunk_tokens, ripple_fraction, "
    "ripple_period_s, drift_fraction, drift_s, noise_fraction.",
)
@click.option(
    "--tokens-per-chunk",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Tokens in one event of a stream.",
)
def command(profile: str, model: str, port: int, seed: int, **asked: Any) -> None:
    """Serve an emulated PROFILE in real time until Ctrl-C.

    It speaks the OpenAI API (/v1/models, /v1/completions, /v1/chat/completions), shows its
    sensors as Prometheus metrics (/metrics, DCGM and vLLM names) and tells the exact truth about
    any window (/truth?start=T&end=T, Unix seconds). One line `ready URL` says that it accepts.
    """
    from wattbench.emulator.exposition import Page
    from wattbench.emulator.server import EmulatorServer
    from wattbench.openai_api.loopback import serve

    machine_profile, descriptor = load_profile(profile), load_model(model)
    settings = parse_options(_spec("power", asked["power"]), MachineSettings)
    machine = EmulatedMachine(roofline(machine_profile, descriptor), settings, seed)
    specs = map(parse_spec, asked["faults"])
    faults = [make_fault(spec.name, spec.values, seed) for spec in specs]
    machine.throttle = next((fault for fault in faults if fault.kind == "throttle"), None)
    sensor = parse_options(_spec("sensor", asked["sensor"]), SensorOptions)
    count = machine.roofline.device_count
    page = Page(
        machine=machine,
        sensors=[Sensor(machine, device, sensor, faults, seed) for device in range(count)],
        profile=machine_profile.name,
        model=descriptor.name,
    )
    server = EmulatorServer(
        page,
        seed=seed,
        tokens_per_chunk=asked["tokens_per_chunk"],
        faults=[_answer_fault(text) for text in asked["answer_faults"]],
    )
    asyncio.run(serve(server.application(), port, lambda url: click.echo(f"ready {url}")))


def _answer_fault(text: str) -> AnswerFault:
    spec = parse_spec(text)
    if spec.name not in ANSWER_FAULTS:
        raise UsageError(f"no answer fault {spec.name!r}; there are {', '.join(ANSWER_FAULTS)}")
    fault: AnswerFault = parse_options(
        dataclasses.replace(spec, values={"kind": spec.name, **spec.values}), AnswerFault
    )
    return fault


def _spec(name: str, text: str) -> PluginSpec:
    return parse_spec(f"{name},{text}" if text else name)
