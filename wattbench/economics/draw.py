"""Whether measured points can be: what they draw against what a device is laid out for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from wattbench.hardware import MachineProfile
from wattbench.tpf.bands import Band
from wattbench.tpf.operating import OperatingPoint

NARROW = ("chip", "board", "module", "package")
"""Boundaries that leave out the rest of the server."""
ROUNDING = 1e-6


def overdrawn(
    option: str, points: Sequence[OperatingPoint], machine: MachineProfile, provisioned: Band
) -> Iterator[str]:
    """A sentence for each point of more watts than its device can draw for long.

    Args:
        option: Its name.
        points: Measured ones.
        machine: Whose design power limits joules inside the server.
        provisioned: Watts of a device with its share of the node.
    """
    limit_watts, what = provisioned.high, "is provisioned with"
    for point in points:
        power = machine.power
        if point.boundary in NARROW and power and power.tdp and power.tdp.value < limit_watts:
            limit_watts, what = power.tdp.value, "has as its design power"
        joules = point.energy_per_output_token_joules.value
        rate = point.output_tokens_per_s.value
        watts = joules * rate / point.device_count
        if watts > limit_watts * (1 + ROUNDING):
            yield (
                f"{option}: {joules:g} J/token at {rate:g} tokens/s on {point.device_count} "
                f"device(s), {point.concurrency_count:g} users, are {watts:.4g} W per device at "
                f"the {point.boundary}, above the {limit_watts:g} W that it {what}: one of these "
                f"figures is wrong"
            )
