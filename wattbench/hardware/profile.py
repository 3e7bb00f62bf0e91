"""Machine profiles: every figure with its unit, source, date and how it is known.

A profile answers what a machine can do and what it draws. A figure that nobody published is
absent, never zero; a group without a source does not load.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from wattbench.core.energy import Boundary
from wattbench.core.errors import UsageError
from wattbench.documents import Document, find_document, load_document, shipped_names

FOLDER = "hardware_profiles"
Dtype = Literal["fp32", "bf16", "fp16", "fp8", "int8", "fp4", "int4"]
Evidence = Literal["measured", "modelled", "nameplate", "assumed"]
Unit = Literal["FLOP/s", "B", "B/s", "W", "s", "USD", "USD/h", "1", "count"]


class Figure(Document):
    """One number about a machine.

    Attributes:
        value: The number in ``unit``.
        low: Lower end of what the source allows, None if it gives a point.
        high: Upper end of what the source allows, None if it gives a point.
        unit: SI unit, or USD.
        evidence: How it is known: ``measured`` by somebody, ``modelled`` from other figures,
            ``nameplate`` from a data sheet, ``assumed`` for want of anything better.
        source: Title or URL, and where in it.
        date: When the source said so, ``YYYY``, ``YYYY-MM`` or ``YYYY-MM-DD``.
        note: Anything that a reader must know.
    """

    value: Annotated[float, Field(ge=0)]
    low: Annotated[float, Field(ge=0)] | None = None
    high: Annotated[float, Field(ge=0)] | None = None
    unit: Unit
    evidence: Evidence
    source: Annotated[str, Field(min_length=3)]
    date: Annotated[str, Field(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$")]
    note: str | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Figure:
        low, high = self.low, self.high
        if (low is None) != (high is None):
            raise ValueError("low and high come together")
        if low is not None and high is not None and not low <= self.value <= high:
            raise ValueError(f"value {self.value:g} is outside low {low:g} … high {high:g}")
        return self


def _in(unit: Unit) -> AfterValidator:
    """A figure that must be given in one unit."""

    def check(figure: Figure) -> Figure:
        if figure.unit != unit:
            raise ValueError(f"unit {figure.unit!r} must be {unit!r}")
        return figure

    return AfterValidator(check)


Flops = Annotated[Figure, _in("FLOP/s")]
Bytes = Annotated[Figure, _in("B")]
BytesPerSecond = Annotated[Figure, _in("B/s")]
Watts = Annotated[Figure, _in("W")]
Seconds = Annotated[Figure, _in("s")]
Share = Annotated[Figure, _in("1")]
Count = Annotated[Figure, _in("count")]
Dollars = Annotated[Figure, _in("USD")]
DollarsPerHour = Annotated[Figure, _in("USD/h")]


class Compute(Document):
    """Arithmetic of one device: dense peaks per number format, and the share achieved."""

    dense_peak: dict[Dtype, Flops] = Field(default_factory=dict)
    achieved_fraction: Share | None = None


class Memory(Document):
    """The memory that holds weights and KV cache.

    Attributes:
        level: What kind it is.
        capacity: All of it.
        bandwidth: Peak.
        achieved_fraction: Share of the peak that kernels reach.
        reserve: What an engine keeps free.
        on_chip_capacity: SRAM above it: last-level cache, or scratch memory.
        on_chip_bandwidth: Peak of that.
    """

    level: Literal["HBM", "GDDR", "LPDDR", "DDR", "SRAM"]
    capacity: Bytes | None = None
    bandwidth: BytesPerSecond | None = None
    achieved_fraction: Share | None = None
    reserve: Bytes | None = None
    on_chip_capacity: Bytes | None = None
    on_chip_bandwidth: BytesPerSecond | None = None


class Link(Document):
    """Connection to the next device, one way.

    Attributes:
        bandwidth_one_way: To one neighbour.
        domain_size: Devices that reach each other at this bandwidth.
        hop_latency: Time from one device to the next.
        split: How a model that needs several devices is cut: every layer over all of them
            (``tensor``), or layer after layer (``pipeline``).
    """

    bandwidth_one_way: BytesPerSecond | None = None
    domain_size: Count | None = None
    hop_latency: Seconds | None = None
    split: Literal["tensor", "pipeline"] = "tensor"


class Latency(Document):
    """Time that no roofline explains.

    Attributes:
        step_overhead: Per engine step: scheduling, launching, sampling.
        layer: Per transformer block: synchronisation and reductions.
    """

    step_overhead: Seconds | None = None
    layer: Seconds | None = None


class PowerAnchor(Document):
    """Power in one regime of load."""

    regime: Literal["memory_bound", "compute_bound"]
    power: Watts


class Power(Document):
    """What one device draws.

    Attributes:
        boundary: What all watts of this group include.
        tdp: Design power or power limit.
        idle_deep: No context, nothing resident.
        idle_context: Model resident, nothing running.
        floor_active: A kernel running that does next to nothing.
        anchors: Power at the two ends of the roofline.
    """

    boundary: Boundary
    tdp: Watts | None = None
    idle_deep: Watts | None = None
    idle_context: Watts | None = None
    floor_active: Watts | None = None
    anchors: tuple[PowerAnchor, ...] = ()

    def anchor(self, regime: str) -> Figure | None:
        """Power of one regime, None if unknown."""
        return next((a.power for a in self.anchors if a.regime == regime), None)


class Node(Document):
    """The server that the devices sit in; measured load and provisioned power are apart.

    Attributes:
        accelerators: Devices in it.
        fixed_power: What it draws beside the devices, whatever they do.
        slope: Watts of the server for each watt of the devices.
        maximum_power: Most that the whole may draw, as its maker says.
        average_power: What the whole draws under load, as its maker says.
        provisioned_power_per_accelerator: A device with its share of host and network, without
            the facility: for contracts and money, never for joules per token.
    """

    accelerators: Count | None = None
    fixed_power: Watts | None = None
    slope: Share | None = None
    maximum_power: Watts | None = None
    average_power: Watts | None = None
    provisioned_power_per_accelerator: Watts | None = None


class Serving(Document):
    """What is known of a machine only as it is served.

    Attributes:
        concurrency: Users that one served model, on all devices that hold it, answers at once.
    """

    concurrency: Count | None = None


class Price(Document):
    """What a device costs, one entry per source."""

    kind: Literal["msrp", "list", "street", "estimate", "reserved", "on_demand"]
    purchase: Dollars | None = None
    rent: DollarsPerHour | None = None


class MachineProfile(Document):
    """A machine that turns energy into tokens.

    Attributes:
        name: File name without ``.yaml``.
        title: The vendor's name for it.
        vendor: Who makes it.
        device_class: What kind of machine it is.
        count: Devices of this kind that ``--devices`` and the figures refer to.
        calibrated_on: Measurements that the modelled figures were fitted to.
        checked_against: Measurements that they were compared with, and the outcome.
    """

    name: str
    title: str
    vendor: str
    device_class: Literal["gpu", "tpu", "accelerator", "sram", "npu", "cpu", "soc"]
    compute: Compute = Compute()
    memory: Memory | None = None
    link: Link | None = None
    latency: Latency = Latency()
    power: Power | None = None
    node: Node | None = None
    serving: Serving | None = None
    prices: tuple[Price, ...] = ()
    calibrated_on: str | None = None
    checked_against: str | None = None

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """Every figure with its dotted place, such as ``power.anchors.memory_bound``."""
        yield from _figures(self, ())

    @property
    def power_evidence(self) -> Evidence | None:
        """How it is known what the machine draws under load, None if nothing is.

        Anchors count before the design power: the weakest of them, since both ends are needed.
        """
        if self.power is None:
            return None
        known = [anchor.power for anchor in self.power.anchors]
        if not known and self.power.tdp is not None:
            known = [self.power.tdp]
        order = get_args(Evidence)
        return max((figure.evidence for figure in known), key=order.index, default=None)

    def need(self, *path: str) -> float:
        """Value of a figure that a caller cannot do without.

        Args:
            path: Attribute names, such as ``"memory", "bandwidth"``.

        Raises:
            UsageError: If the profile does not have it, naming the figure.
        """
        value: Any = self
        for part in path:
            value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
        if not isinstance(value, Figure):
            raise UsageError(
                f"hardware profile {self.name!r} has no {'.'.join(path)}; nobody published it, or "
                f"it is not filled in. Choose a profile that has it, take it from another machine "
                f"(--like NAME, where a command has that), or add it to a copy of the file with "
                f"its source."
            )
        return value.value


def _figures(value: object, path: tuple[str, ...]) -> Iterator[tuple[str, Figure]]:
    if isinstance(value, Figure):
        yield ".".join(path), value
    elif isinstance(value, Document):
        for name in type(value).model_fields:
            label = () if isinstance(value, PowerAnchor) else (name,)
            yield from _figures(getattr(value, name), (*path, *label))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _figures(inner, (*path, key))
    elif isinstance(value, tuple):
        for inner in value:
            name = inner.regime if isinstance(inner, PowerAnchor) else inner.kind
            yield from _figures(inner, (*path, name))


def load_profile(name_or_path: str) -> MachineProfile:
    """A shipped profile by name, or any by path.

    Raises:
        DocumentError: If there is none, or the file is wrong.
    """
    return load_document(find_document(FOLDER, name_or_path, "hardware profile"), MachineProfile)


def profile_names() -> list[str]:
    """Names of the shipped profiles."""
    return shipped_names(FOLDER)
