"""Further limits beside the two ceilings, each in tokens per second of the whole fleet.

The Token Production Function knows compute and power alone. Decoding is mostly held by the
bandwidth of memory, by the users whose context fits into it, by the service level, and a site by
its cooling: the lowest of all is what can be served.
"""

from __future__ import annotations

from collections.abc import Sequence

from wattbench.core.errors import UsageError
from wattbench.hardware import MachineProfile, ModelDescriptor, roofline
from wattbench.tpf.bands import Band, exactly, from_draws, worst
from wattbench.tpf.operating import OperatingPoint, octaves_to, users_held, with_power


def concurrencies(
    machine: MachineProfile,
    model: ModelDescriptor,
    input_tokens: int,
    output_tokens: int,
    devices: int | None = None,
) -> list[int]:
    """Users at once to look at, up to those whose context the memory of a replica holds."""
    room = users_held(roofline(with_power(machine), model, devices), input_tokens + output_tokens)
    return octaves_to(max(room, 1))


def within_slo(points: Sequence[OperatingPoint], tpot_s: float | None) -> list[OperatingPoint]:
    """Points whose users wait no longer for a token than a limit.

    Raises:
        UsageError: If there is none.
    """
    if tpot_s is None:
        return list(points)
    met = [p for p in points if 1 / p.interactivity_tokens_per_s_per_user.value <= tpot_s]
    if not met:
        best = max(points, key=lambda p: p.interactivity_tokens_per_s_per_user.value)
        fastest_s = 1 / best.interactivity_tokens_per_s_per_user.value
        raise UsageError(
            f"no operating point meets TPOT < {tpot_s * 1e3:g} ms: the fastest, with "
            f"{best.concurrency_count:g} users, takes {fastest_s * 1e3:.3g} ms"
        )
    return met


def lowest_energy(points: Sequence[OperatingPoint]) -> OperatingPoint:
    """The lower envelope: the point with the fewest joules per token."""
    return min(points, key=lambda p: p.energy_per_output_token_joules.value)


def staves(
    points: Sequence[OperatingPoint],
    met: Sequence[OperatingPoint],
    replica_count: float,
    node_energy_joules: Band,
    cooling_watts: float | None,
) -> dict[str, Band]:
    """Tokens per second that each further limit allows.

    Args:
        points: All that the memory holds.
        met: Those of them that meet the service level.
        replica_count: Replicas of the fleet.
        node_energy_joules: Joules of a token at node scope.
        cooling_watts: Heat that can be carried away; None: no limit of its own.
    """
    fullest = max(points, key=lambda p: p.concurrency_count)
    fastest = max(met, key=lambda p: p.output_tokens_per_s.value)
    found = {
        "kv_capacity": fullest.output_tokens_per_s.times(replica_count),
        "slo": fastest.output_tokens_per_s.times(replica_count),
    }
    if cooling_watts is not None:
        cooling = exactly(cooling_watts, "given")
        drawn = cooling_watts / node_energy_joules.draws("node_energy_joules")
        kind = worst(cooling, node_energy_joules)
        found["cooling"] = from_draws(cooling_watts / node_energy_joules.value, drawn, kind)
    return found


def bandwidth_stave(
    machine: MachineProfile,
    model: ModelDescriptor,
    users: int,
    context_tokens: float,
    replica_count: float,
    devices: int | None = None,
) -> Band:
    """Tokens per second if memory did nothing but read weights and KV cache for ``users``."""
    bare = roofline(with_power(machine), model, devices)
    moved_bytes = bare.moved_bytes(users, round(users * context_tokens))
    rate = replica_count * users * bare.bytes_per_s / moved_bytes
    share = machine.memory.achieved_fraction if machine.memory else None
    if share is None or share.low is None or share.high is None:
        return exactly(rate, "nameplate")
    low, high = (rate * end / share.value for end in (share.low, share.high))
    return Band(value=rate, low=low, high=high)
