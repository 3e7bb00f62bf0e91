r"""What a machine does at an operating point, measured or modelled, with a 90 % band.

Of a machine that nobody measured with a model, one step of the roofline says how long it takes to
give each of n users a token and to read in the prompts of those that come meanwhile,

    tokens = n · (1 + input/output)      t = t_step · s      J/token = P_step · t_step / n · c

A bare roofline flatters, and the more so the more users there are. Of 67 operating points of five
models on A100 and H100 (ML.ENERGY v2, arXiv 2601.22076, vLLM 0.5.4; Llama 3.1 8B, 70B and 405B,
Gemma 2 27B, Mixtral 8x7B; 32 to 1,242 users) joules per token were 1.3 to 9 times the roofline's,
median 3.4, and the rate 0.03 to 0.46 of it, median 0.11. A later engine (0.11) took 41 % less
energy, and kernels alone reach 0.8. `served_rate_fraction` and `served_energy_ratio` lie over that
range. They make every figure ``modelled``, nearly a decade wide: measure, and it narrows. They are
taken for a replica of any size: of what more devices cost, only the roofline's hops are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wattbench.core.energy import Boundary
from wattbench.core.errors import UsageError
from wattbench.hardware import MachineProfile, ModelDescriptor, Roofline, roofline
from wattbench.hardware.profile import Figure, Power, PowerAnchor
from wattbench.tpf.bands import Band, Kind

UNMEASURED_POWER_FRACTIONS = (0.2, 0.5, 1.0)
"""Of the design power, where nobody published a reading under load: least, middle, most."""
IDLE_FRACTION = 0.15
"""Of the design power, where no idle power is published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """One replica of a model on its devices, at one concurrency.

    Attributes:
        concurrency_count: Users whose answers are written at once.
        device_count: Devices of the replica.
        output_tokens_per_s: Of the replica.
        energy_per_output_token_joules: Of all its devices, prompts included.
        boundary: What those joules include.
    """

    concurrency_count: float
    device_count: int
    output_tokens_per_s: Band
    energy_per_output_token_joules: Band
    boundary: Boundary

    @property
    def interactivity_tokens_per_s_per_user(self) -> Band:
        """Tokens per second that one user sees."""
        return self.output_tokens_per_s.times(1 / self.concurrency_count)


def modelled_points(
    machine: MachineProfile,
    model: ModelDescriptor,
    concurrency: Sequence[int],
    *,
    input_tokens: int,
    output_tokens: int,
    devices: int | None = None,
) -> list[OperatingPoint]:
    """Operating points of a machine and a model from the roofline.

    Args:
        machine: What it can do and draws; without power anchors its design power stands for them.
        model: What a token asks for.
        concurrency: Users at once, one point for each that the memory holds.
        input_tokens: Prompt of a request [tokens].
        output_tokens: Answer of a request [tokens].
        devices: Devices of a replica; None: the fewest that hold the model.

    Raises:
        UsageError: If the profile lacks a figure, the memory holds no user at all, or a replica
            cannot have so many devices.
    """
    bare = roofline(with_power(machine), model, devices)
    power = machine.power
    context_tokens = input_tokens + output_tokens // 2
    room = users_held(bare, input_tokens + output_tokens)
    held = [users for users in concurrency if users <= room]
    if not held:
        raise UsageError(
            f"{machine.title} holds {room} users of {input_tokens} + {output_tokens} tokens beside "
            f"the weights of {model.title}; {min(concurrency)} are asked for"
        )
    points = []
    for users in held:
        prompt_tokens = round(users * input_tokens / output_tokens)
        attended = users * context_tokens + prompt_tokens * input_tokens // 2
        step = bare.step(users + prompt_tokens, attended, users * context_tokens)
        energy_joules = step.power_watts * step.duration_s / users
        points.append(
            OperatingPoint(
                concurrency_count=users,
                device_count=bare.device_count,
                output_tokens_per_s=_served(users / step.duration_s, users, machine),
                energy_per_output_token_joules=_spent(energy_joules, users, machine),
                boundary=power.boundary if power else "board",
            )
        )
    return points


def users_held(bare: Roofline, tokens: int) -> int:
    """Users whose whole context fits beside the weights of one replica."""
    return int(bare.kv_capacity_tokens / tokens)


def octaves_to(most: int) -> list[int]:
    """1, 2, 4 … and the most, as concurrencies to look at."""
    return [*(1 << power for power in range(most.bit_length()) if 1 << power < most), most]


def served_rate_fraction(users: int) -> Band:
    """Tokens per second of a served model over the roofline's."""
    return Band(value=0.75 * users**-0.2, low=0.6 * users**-0.33, high=0.9)


def served_energy_ratio(users: int) -> Band:
    """Joules per token of a served model over the roofline's."""
    return Band(value=1.15 * users**0.13, low=1.0, high=1.3 * users**0.3)


SRAM_RATE_FRACTION = Band(value=1.0, low=0.75, high=1.3)
"""SRAM machines have latencies that were fitted to served speeds."""
SRAM_ENERGY_RATIO = Band(value=1.0, low=0.5, high=1.5)


def _served(tokens_per_s: float, users: int, machine: MachineProfile) -> Band:
    sram = machine.device_class == "sram"
    return (SRAM_RATE_FRACTION if sram else served_rate_fraction(users)).times(tokens_per_s)


def _spent(energy_joules: float, users: int, machine: MachineProfile) -> Band:
    sram = machine.device_class == "sram"
    band = (SRAM_ENERGY_RATIO if sram else served_energy_ratio(users)).times(energy_joules)
    anchors = machine.power.anchors if machine.power else ()
    kind: Kind = "modelled" if anchors else "nameplate"
    if not anchors:
        least, middle, most = UNMEASURED_POWER_FRACTIONS
        band = Band(value=band.value, low=band.low * least / middle, high=band.high * most / middle)
    return replace(band, kind=kind)


def with_power(machine: MachineProfile) -> MachineProfile:
    """The machine with an anchor at every regime: half the design power where none is published.

    Raises:
        UsageError: If it has not even a design power.
    """
    power = machine.power
    if power is not None and len(power.anchors) >= len(("memory_bound", "compute_bound")):
        return machine
    if power is None or power.tdp is None:
        raise UsageError(
            f"hardware profile {machine.name!r} has no power figure at all, so there is no energy "
            f"per token; add one with its source to a copy of the file"
        )
    middle = _assumed(power.tdp, UNMEASURED_POWER_FRACTIONS[1])
    filled = Power(
        boundary=power.boundary,
        tdp=power.tdp,
        idle_context=power.idle_context or _assumed(power.tdp, IDLE_FRACTION),
        floor_active=power.floor_active or _assumed(power.tdp, IDLE_FRACTION),
        anchors=(
            PowerAnchor(regime="memory_bound", power=middle),
            PowerAnchor(regime="compute_bound", power=middle),
        ),
    )
    return machine.model_copy(update={"power": filled})


def _assumed(tdp: Figure, part: float) -> Figure:
    return Figure(
        value=part * tdp.value,
        unit="W",
        evidence="assumed",
        source=f"{part:.0%} of the design power: {tdp.source}",
        date=tdp.date,
    )


BLANKS = (
    ("compute", "achieved_fraction"),
    ("memory", "achieved_fraction"),
    ("memory", "reserve"),
    ("latency", "step_overhead"),
    ("link", "hop_latency"),
    ("link", "bandwidth_one_way"),
)
"""Figures that no data sheet has, and that may be taken from a machine of the same sort."""


def filled_like(
    machine: MachineProfile, like: MachineProfile
) -> tuple[MachineProfile, tuple[str, ...]]:
    """A machine whose blanks are taken from another one, and which those were.

    A blank is never filled silently: whoever asks for it names the other machine, and every figure
    taken is ``assumed``. The memory kept free is taken as a part of all of it.
    """
    taken = []
    for group, name in BLANKS:
        mine, theirs = getattr(machine, group), getattr(like, group)
        figure = getattr(theirs, name, None)
        if figure is None or getattr(mine, name, None) is not None:
            continue
        if group == "memory" and mine is None:
            continue  # what holds the weights is no blank that another machine could fill
        if (group, name) == ("memory", "reserve"):
            share = machine.need("memory", "capacity") / like.need("memory", "capacity")
            figure = _scaled(figure, share)
        note = {"evidence": "assumed", "source": f"as {like.name}: {figure.source}"}
        part = (mine or type(theirs)()).model_copy(update={name: figure.model_copy(update=note)})
        machine = machine.model_copy(update={group: part})
        taken.append(f"{group}.{name}")
    return machine, tuple(taken)


def _scaled(figure: Figure, factor: float) -> Figure:
    ends = {name: getattr(figure, name) for name in ("low", "high")}
    scaled = {name: None if end is None else end * factor for name, end in ends.items()}
    return figure.model_copy(update={"value": figure.value * factor, **scaled})
