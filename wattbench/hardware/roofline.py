"""Time and power of one engine step from a roofline: the physics of modelled machines.

    t_flops = (2 · N_active · n + 4 · layers · heads · d_head · Σ attended) / (F_peak · η_F · s)
    t_bytes = (weights read + KV bytes per token · Σ cached) / (B_peak · η_B · s)
    t_step  = max(t_flops, t_bytes) + t_overhead + layers · t_layer + hops · t_hop
    P_step  = m · min(TDP, P_floor + (P_mem − P_floor) · t_bytes / t_step
                                   + (P_cmp − P_floor) · t_flops / t_step)

    weights read = weights that every token passes + experts · (1 − (1 − k/E)ⁿ)

with n the tokens computed in the step, *attended* the context that each of them looks at and
*cached* the keys and values read, once per sequence. Each token chooses k of E experts as if at
random. Latent attention and windows: see ``ModelDescriptor``. P_mem and P_cmp are the powers at the
two ends of the roofline; while neither memory nor arithmetic works the machine draws P_floor. A
machine whose limit nobody published is held to P_cmp.

A model that does not fit one device, or is wanted faster, is cut over m. Cut by tensors, all m
work on every layer (s = m, two hops per layer, as long for any m); cut as a pipeline, one after the
other (s = 1, m − 1 hops). What limits an SRAM wafer is not its bandwidth but the last three terms
of t_step: without them a 70-billion-parameter model would come out some 70 times faster than it is
served.

Source: Williams, Waterman, Patterson, *Roofline*, CACM 52(4), 2009, for the time; the power is
the energy-roofline of Choi et al., IPDPS 2013, clipped at the power limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from wattbench.core.errors import UsageError
from wattbench.hardware.model import ModelDescriptor
from wattbench.hardware.profile import MachineProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """Duration [s] and mean power [W] of one engine step, all devices together."""

    duration_s: float
    power_watts: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """A (machine, model) pair reduced to the constants of the equations above, devices summed.

    ``weight_bytes`` are those read for one token, of ``expert_bytes`` the ``expert_fraction``.
    """

    device_count: int
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
    expert_bytes: float = 0.0
    expert_fraction: float = 0.0

    def step(
        self,
        tokens: int,
        attended_tokens: int,
        cached_tokens: int,
        limit_watts: float | None = None,
    ) -> StepCost:
        """Cost of a step.

        Args:
            tokens: Tokens computed in the step: one per decoding request, plus prefill [tokens].
            attended_tokens: Sum over those tokens of the context each attends to [tokens].
            cached_tokens: Sum over the sequences of the context whose KV is read [tokens].
            limit_watts: A power limit below the device's own [W]: the step is stretched until its
                mean power above the floor fits under it.
        """
        flops = tokens * self.flops_per_token
        flops += attended_tokens * self.attention_flops_per_context_token
        arithmetic_s = flops / self.flops_per_s
        memory_s = self.moved_bytes(tokens, cached_tokens) / self.bytes_per_s
        duration_s = max(arithmetic_s, memory_s) + self.overhead_s
        power_watts = (
            self.floor_watts
            + (self.memory_watts - self.floor_watts) * memory_s / duration_s
            + (self.compute_watts - self.floor_watts) * arithmetic_s / duration_s
        )
        power_watts = min(power_watts, self.limit_watts)
        if limit_watts is not None and power_watts > limit_watts:
            room_watts = max(limit_watts - self.floor_watts, 1e-3 * self.floor_watts)
            duration_s *= (power_watts - self.floor_watts) / room_watts
            power_watts = self.floor_watts + room_watts
        return StepCost(duration_s=duration_s, power_watts=power_watts)

    def moved_bytes(self, tokens: int, cached_tokens: int) -> float:
        """Weights and KV cache that a step reads [B]; arguments as of `step`."""
        untouched_fraction = (1.0 - self.expert_fraction) ** max(tokens, 1)
        more_experts_fraction = 1.0 - self.expert_fraction - untouched_fraction
        weights = self.weight_bytes + self.expert_bytes * more_experts_fraction
        return weights + cached_tokens * self.kv_bytes_per_token


def roofline(
    machine: MachineProfile, model: ModelDescriptor, devices: int | None = None
) -> Roofline:
    """Constants of a machine and a model.

    Args:
        machine: What one device can do and draws.
        model: What a token asks for.
        devices: Devices of one replica; None: as few as hold the weights.

    Raises:
        UsageError: If the profile lacks a figure, or a replica cannot have so many devices.
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
    count = _fewest_devices(machine, model)
    if devices is not None:
        _check_devices(machine, model, devices, count)
        count = devices
    kv_room_bytes = count * room_bytes - model.weight_bytes
    speed_up = count if _by_tensors(machine) else 1
    return Roofline(
        device_count=count,
        flops_per_token=2.0 * model.active_parameters,
        attention_flops_per_context_token=model.attention_flops_per_context_token,
        weight_bytes=model.active_weight_bytes,
        kv_bytes_per_token=model.kv_bytes_per_token,
        kv_capacity_tokens=int(kv_room_bytes / model.kv_bytes_per_token),
        flops_per_s=speed_up
        * machine.need("compute", "dense_peak", model.arithmetic)
        * machine.need("compute", "achieved_fraction"),
        bytes_per_s=speed_up
        * machine.need("memory", "bandwidth")
        * machine.need("memory", "achieved_fraction"),
        overhead_s=_overhead_s(machine, model, count),
        idle_watts=count * machine.need("power", "idle_context"),
        floor_watts=count * machine.need("power", "floor_active"),
        memory_watts=count * memory_watts.value,
        compute_watts=count * compute_watts.value,
        limit_watts=count * (power.tdp.value if power and power.tdp else compute_watts.value),
        expert_bytes=model.expert_bytes,
        expert_fraction=(model.experts_per_token or 0) / (model.experts or 1),
    )


def devices_needed(
    machine: MachineProfile, model: ModelDescriptor, context_tokens: int, sequences: int
) -> int:
    """Fewest devices whose memory holds the weights and the KV cache of a load.

    ⌈(weights + sequences · KV of one) / capacity⌉: nothing is kept free, and no rule of how a model
    may be cut is looked at. A real set-up needs as many or more.

    Args:
        machine: Profile with a memory capacity.
        model: Model to hold.
        context_tokens: Context of every sequence [tokens].
        sequences: Sequences at once.

    Raises:
        UsageError: If the profile lacks its capacity.
    """
    held_bytes = model.weight_bytes + sequences * model.kv_bytes(context_tokens)
    return math.ceil(held_bytes / machine.need("memory", "capacity"))


def _fewest_devices(machine: MachineProfile, model: ModelDescriptor) -> int:
    """Devices that hold the weights and a tenth of that in KV cache.

    A power of two where layers are cut into tensors.
    """
    room_bytes = machine.need("memory", "capacity") - machine.need("memory", "reserve")
    count = math.ceil(1.1 * model.weight_bytes / room_bytes)
    return 1 << (count - 1).bit_length() if _by_tensors(machine) else count


def _by_tensors(machine: MachineProfile) -> bool:
    return machine.link is None or machine.link.split == "tensor"


def _check_devices(
    machine: MachineProfile, model: ModelDescriptor, devices: int, fewest: int
) -> None:
    domain = machine.link.domain_size if machine.link else None
    limits = [f"{fewest} or more hold {model.title}"]
    wrong = devices < fewest
    if _by_tensors(machine):
        limits.append("a power of two, since layers are cut into tensors")
        wrong |= devices.bit_count() != 1
    if domain is not None:
        limits.append(f"at most the {domain.value:g} that its link joins")
        wrong |= devices > max(domain.value, fewest)
    if wrong:
        raise UsageError(
            f"{devices} devices of {machine.title} make no replica: {'; '.join(limits)}"
        )


def _overhead_s(machine: MachineProfile, model: ModelDescriptor, count: int) -> float:
    latency = machine.latency
    layer_s = latency.layer.value if latency.layer else 0.0
    overhead_s = machine.need("latency", "step_overhead") + model.layers * layer_s
    if count > 1:
        hops = 2 * model.layers if _by_tensors(machine) else count - 1
        overhead_s += hops * machine.need("link", "hop_latency")
    return overhead_s
