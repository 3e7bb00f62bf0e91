"""The emulated device as a backend: a machine profile and a model, in virtual or real time."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from wattbench.core.errors import BackendError, UsageError
from wattbench.core.load import InferenceRequest, TokenChunk, Usage
from wattbench.core.run import EngineInfo, Mode
from wattbench.emulator import EmulatedMachine, Fault, MachineSettings, make_fault
from wattbench.hardware import load_model, roofline
from wattbench.hardware.profile import MachineProfile
from wattbench.plugins import PluginContext, option, parse_spec

_ONE_TOKEN = TokenChunk(tokens=1)
_BYTES_PER_TOKEN = 4
"""Given texts are not tokenised here; English has about four bytes a token, most others fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedOptions:
    """Options of ``--backend emulated``."""

    model: str = option(
        "llama-3.1-8b",
        "model: a shipped descriptor, a file of one, or a config.json",
    )
    max_batch: int = option(256, "most requests in one step")
    prefill_chunk_tokens: int = option(2048, "most tokens computed in one step [tokens]")
    ripple_fraction: float = option(0.0, "power swings by this, as a square wave")
    ripple_period_s: float = option(0.02, "period of the swing [s]")
    drift_fraction: float = option(0.0, "a warm machine draws this much more")
    drift_s: float = option(60.0, "time constant of warming up [s]")
    noise_fraction: float = option(0.0, "standard deviation of a step's power")
    fault: str | None = option(None, "a meter fault, KIND or 'KIND,key=value…' in quotes")
    time: Literal["virtual", "real"] = option(
        "virtual", "virtual: as fast as the host computes, repeatable; real: by the wall clock"
    )

    def __post_init__(self) -> None:
        """Refuse what no engine can do."""
        _ = self.settings

    @property
    def settings(self) -> MachineSettings:
        """The part that the machine itself takes."""
        names = (field.name for field in dataclasses.fields(MachineSettings))
        return MachineSettings(**{name: getattr(self, name) for name in names})


class EmulatedBackend:
    """Emulates ``--hardware`` serving a model; timing and power from its roofline."""

    Options = EmulatedOptions
    default_meter = "emulated"

    def __init__(self, options: EmulatedOptions, context: PluginContext) -> None:
        if not isinstance(context.hardware, MachineProfile):
            raise UsageError("backend emulated needs --hardware, such as --hardware h100-sxm")
        self.profile = context.hardware
        self.model = load_model(options.model)
        self.virtual_time = options.time == "virtual"
        physics = roofline(self.profile, self.model)
        self.machine = EmulatedMachine(physics, options.settings, context.seed)
        self.faults: tuple[Fault, ...] = ()
        if options.fault is not None:
            spec = parse_spec(options.fault)
            self.faults = (make_fault(spec.name, spec.values, context.seed),)
            throttles = [fault for fault in self.faults if fault.kind == "throttle"]
            self.machine.throttle = throttles[0] if throttles else None

    @staticmethod
    def availability() -> str | None:
        """Always usable."""
        return None

    async def open(self) -> EngineInfo:
        """Switch the device on."""
        self.machine.start()
        return EngineInfo(
            model=self.model.name,
            engine="wattbench emulator",
            tokens_source="engine",
            on_client_host=False,
            mode=Mode(
                precision=self.model.precision,
                kv_precision=self.model.kv_precision,
                prefix_cache=False,
            ),
            detail={"machine": self.profile.name, "devices": self.machine.roofline.device_count},
        )

    async def generate(self, request: InferenceRequest) -> AsyncIterator[TokenChunk]:
        """Yield one token per step of the device."""
        input_tokens = request.synthetic_input_tokens + sum(
            max(1, round(len(message.text.encode()) / _BYTES_PER_TOKEN))
            for message in request.messages
            if message.text is not None
        )
        try:
            stream = self.machine.submit(input_tokens, request.max_output_tokens)
        except ValueError as error:
            raise BackendError(f"request {request.index}: {error}") from error
        usage = Usage(
            input_tokens=stream.input_tokens,
            output_tokens=stream.output_tokens,
            cached_tokens=0,
            finish_reason="length",
        )
        last = TokenChunk(tokens=1, usage=usage)
        create_future = asyncio.get_running_loop().create_future
        try:
            for remaining in range(stream.output_tokens, 0, -1):
                if not stream.ready:
                    waiter = stream.waiter = create_future()
                    await waiter
                stream.ready -= 1
                yield _ONE_TOKEN if remaining > 1 else last
        finally:
            self.machine.cancel(stream)

    async def close(self) -> None:
        """Switch the device off."""
        self.machine.stop()
