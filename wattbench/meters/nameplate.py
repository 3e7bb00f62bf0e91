"""No sensor at all: the power that the machine's profile allows, as an interval.

For machines without a public counter (hosted APIs, SRAM wafers, NPUs). Power lies somewhere between
idle and the limit of the profile, and nothing is known of where:

    P in [low of idle_context, high of tdp] · devices,     uniform

so that the energy of a window has the same interval, times its length. The value printed is the
middle of it, and means no more than that. The whole machine is charged, whomever else it serves:
a hosted machine is shared, so the joules of your tokens are fewer; how many fewer nobody tells.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from wattbench.core.energy import EnergyDomain
from wattbench.core.errors import UsageError
from wattbench.core.protocols import TraceSink
from wattbench.hardware import MachineProfile
from wattbench.plugins import PluginContext, option

PERIOD_S = 1.0
"""Time between two samples of what does not change [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NameplateOptions:
    """Options of ``--meter nameplate``."""

    devices: int = option(1, "how many machines of the profile do the work")

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not 1 <= self.devices <= 1_000_000:
            raise ValueError(f"devices={self.devices} must be from 1 to 1000000")


class NameplateMeter:
    """Bounds the power of a machine without sensors by its profile (--hardware)."""

    Options = NameplateOptions
    needs_profile = True

    def __init__(self, options: NameplateOptions, context: PluginContext) -> None:
        profile = context.hardware
        if not isinstance(profile, MachineProfile):
            raise UsageError(
                "meter nameplate takes the power of a machine profile: add --hardware NAME "
                "(`wattbench list hardware` shows them)"
            )
        if profile.power is None:
            raise UsageError(
                f"hardware profile {profile.name!r} has no power: nobody published it. Add it to a "
                f"copy of the file with its source, or use another meter"
            )
        idle, limit = profile.power.idle_context, profile.power.tdp
        if limit is None:
            raise UsageError(
                f"hardware profile {profile.name!r} has no power.tdp: nothing bounds it"
            )
        high_watts = limit.value if limit.high is None else limit.high
        low_watts = 0.0
        if idle is not None:
            low_watts = idle.value if idle.low is None else idle.low
        self._watts = options.devices * (low_watts + high_watts) / 2
        shown = f"{low_watts:g} to {high_watts:g} W"
        self._domain = EnergyDomain(
            name=f"{profile.name}:nameplate",
            meter="nameplate",
            quantity="power",
            kind="nameplate",
            boundary=profile.power.boundary,
            current="ac" if profile.power.boundary in ("node", "rack", "facility") else None,
            devices=tuple(f"{profile.name}:{n}" for n in range(options.devices)),
            method=(
                f"{options.devices} x {shown} of profile {profile.name}, idle to limit; the whole "
                f"machine is charged, whomever else it serves"
            ),
            interpolation="hold",
            offset_half_width_watts=options.devices * (high_watts - low_watts) / 2,
        )

    @staticmethod
    def availability() -> str | None:
        """Always usable: it reads nothing."""
        return None

    async def start(self, sink: TraceSink) -> None:
        """Declare the bound, and repeat it once a second."""
        self._sink = sink
        sink.declare(self._domain)
        self._sample()
        self._task = asyncio.create_task(self._repeat())

    async def stop(self) -> None:
        """Repeat it a last time."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._sample()

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            self._sample()

    def _sample(self) -> None:
        self._sink.sample(self._domain.name, [self._sink.now_s()], [self._watts])
