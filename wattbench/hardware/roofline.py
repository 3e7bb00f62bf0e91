"""Time and power of one engine step from a roofline: the physics of modelled machines.

    t_flops = (2 · N_active · n + 4 · layers · heads · d_head · Σ attended) / (F_peak · η_F)
    t_bytes = (active weights + KV bytes per token · Σ cached) / (B_peak · η_B)
    t_step  = max(t_flops, t_bytes) + t_overhead
    P_step  = min(TDP, P_floor + (P_mem − P_floor) · t_bytes / t_step
                               + (P_cmp − P_floor) · t_flops / t_step)

with n the tokens computed in the step, *attended* the context that each of them looks at and
*cached* the keys and values read, once per sequence. P_mem and P_cmp are the powers at the two
ends of the roofline; while neither memory nor arithmetic works the machine draws P_floor.

Source: Williams, Waterman, Patterson, *Roofline*, CACM 52(4), 2009, for the time; the power is
the energy-roofline of Choi et al., IPDPS 2013, clipped at the power limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from wattbench.core.errors import UsageError
from wattbench.hardware.model import ModelDescriptor
from wattbench.hardware.profile import MachineProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """Duration [s] and mean power [W] of one engine step."""

    duration_s: float
    power_watts: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """A (machine, model) pair reduced to the constants of the equations above."""

    flops_per_token: float
    attention_flops_per_context_token: float
    weight_bytes: float
    kv_bytes_per_token: float
    kv_capacity_tokens: int
    flops_per_s: float
    bytes_per_s: float
    overhead_s: float
    idle_watts: float
    floor_watts: float
    memory_watts: float
    compute_watts: float
    limit_watts: float

    def step(self, tokens: int, attended_tokens: int, cached_tokens: int) -> StepCost:
        """Cost of a step.

        Args:
            tokens: Tokens computed in the step: one per decoding request, plus prefill [tokens].
            attended_tokens: Sum over those tokens of the context each attends to [tokens].
            cached_tokens: Sum over the sequences of the context whose KV is read [tokens].
        """
        flops = tokens * self.flops_per_token
        flops += attended_tokens * self.attention_flops_per_context_token
        moved_bytes = self.weight_bytes + cached_tokens * self.kv_bytes_per_token
        arithmetic_s = flops / self.flops_per_s
        memory_s = moved_bytes / self.bytes_per_s
        duration_s = max(arithmetic_s, memory_s) + self.overhead_s
        power_watts = (
            self.floor_watts
            + (self.memory_watts - self.floor_watts) * memory_s / duration_s
            + (self.compute_watts - self.floor_watts) * arithmetic_s / duration_s
        )
        return StepCost(duration_s=duration_s, power_watts=min(power_watts, self.limit_watts))


def roofline(machine: MachineProfile, model: ModelDescriptor) -> Roofline:
    """Constants of a machine and a model.

    Raises:
        UsageError: If the profile lacks a figure, or the weights do not fit.
    """
    power = machine.power
    memory_watts = power.anchor("memory_bound") if power else None
    compute_watts = power.anchor("compute_bound") if power else None
    if memory_watts is None or compute_watts is None:
        raise UsageError(
            f"hardware profile {machine.name!r} has no power anchors (memory_bound and "
            f"compute_bound); add them with their source, or choose another profile"
        )
    room_bytes = machine.need("memory", "capacity") - machine.need("memory", "reserve")
    kv_room_bytes = room_bytes - model.weight_bytes
    if kv_room_bytes <= 0:
        raise UsageError(
            f"model {model.name!r} needs {model.weight_bytes / 1e9:.0f} GB for its weights, "
            f"{machine.name!r} has {room_bytes / 1e9:.0f} GB free; choose a smaller model"
        )
    dtype = model.precision
    return Roofline(
        flops_per_token=2.0 * model.active_parameters,
        attention_flops_per_context_token=4.0
        * model.layers
        * model.attention_heads
        * model.head_dim,
        weight_bytes=model.active_weight_bytes,
        kv_bytes_per_token=model.kv_bytes_per_token,
        kv_capacity_tokens=int(kv_room_bytes / model.kv_bytes_per_token),
        flops_per_s=machine.need("compute", "dense_peak", dtype)
        * machine.need("compute", "achieved_fraction"),
        bytes_per_s=machine.need("memory", "bandwidth")
        * machine.need("memory", "achieved_fraction"),
        overhead_s=machine.need("latency", "step_overhead"),
        idle_watts=machine.need("power", "idle_context"),
        floor_watts=machine.need("power", "floor_active"),
        memory_watts=memory_watts.value,
        compute_watts=compute_watts.value,
        limit_watts=machine.need("power", "tdp"),
    )
