"""What a token asks for and a replica gives: from the roofline, or from stored runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wattbench.cli.stored import load_runs
from wattbench.cli.tpf_points import rows_of
from wattbench.core.errors import UsageError
from wattbench.core.result import Estimate
from wattbench.hardware import MachineProfile, ModelDescriptor
from wattbench.results import PointResult, evaluate
from wattbench.store import database_url
from wattbench.tpf.bands import Band, Kind, exactly, from_draws, worst
from wattbench.tpf.ceilings import Intensity, ModeOfUse
from wattbench.tpf.levers import Lever
from wattbench.tpf.operating import OperatingPoint, modelled_points
from wattbench.tpf.staves import concurrencies, lowest_energy, within_slo
from wattbench.tpf.table import CONCURRENCY, ENERGY, RATE

UNSTATED_FRACTION = 0.05
"""Half-width of a joule or rate whose run gives no interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What the ceilings rest on.

    Attributes:
        mode: Modelled of a full machine, or as measured.
        points: Operating points of one replica.
        met: Those that meet the service level.
        chosen: The one with the fewest joules per token of them.
        compute_flops: FLOP/s of one replica.
        flops_per_token: Compute of one token.
        lengths: Prompt and answer of a request [tokens].
    """

    mode: ModeOfUse
    points: Sequence[OperatingPoint]
    met: Sequence[OperatingPoint]
    chosen: OperatingPoint
    compute_flops: Band
    flops_per_token: Band
    lengths: tuple[float, float]

    def intensity_with(self, levers: Sequence[Lever]) -> Intensity:
        """What a token asks for, levers pulled."""
        flops, energy = self.flops_per_token, self.chosen.energy_per_output_token_joules
        for lever in levers:
            flops = _product(flops, lever.flops_ratio, f"{lever.name} flops")
            energy = _product(energy, lever.energy_ratio, f"{lever.name} energy")
        return Intensity(
            flops_per_token=flops,
            energy_joules=energy,
            boundary=self.chosen.boundary,
            mode=self.mode,
        )

    def as_json(self) -> dict[str, Any]:
        """The operating point that was chosen."""
        return {
            "concurrency": self.chosen.concurrency_count,
            "devices_per_replica": self.chosen.device_count,
            "energy_per_output_token_joules": self.chosen.energy_per_output_token_joules.as_json(),
            "energy_boundary": self.chosen.boundary,
            "flops_per_token": self.flops_per_token.as_json(),
            "compute_flops_per_replica": self.compute_flops.as_json(),
        }


def _product(first: Band, second: Band, name: str) -> Band:
    drawn = first.draws(f"{name} before") * second.draws(name)
    return from_draws(first.value * second.value, drawn, worst(first, second))


def modelled_basis(
    machine: MachineProfile,
    model: ModelDescriptor,
    tpot_s: float | None,
    lengths: tuple[int, int],
    devices: int | None = None,
) -> Basis:
    """From the roofline of a profile; see `wattbench.tpf.operating`."""
    users = concurrencies(machine, model, *lengths, devices)
    points = modelled_points(
        machine,
        model,
        users,
        input_tokens=lengths[0],
        output_tokens=lengths[1],
        devices=devices,
    )
    met = within_slo(points, tpot_s)
    chosen = lowest_energy(met)
    return Basis(
        mode="intrinsic",
        points=points,
        met=met,
        chosen=chosen,
        compute_flops=_compute(machine, model).times(chosen.device_count),
        flops_per_token=_flops_per_token(model, lengths),
        lengths=lengths,
    )


def _compute(machine: MachineProfile, model: ModelDescriptor) -> Band:
    """Effective FLOP/s of a device: dense peak of the model's format times what is achieved."""
    peak = machine.need("compute", "dense_peak", model.arithmetic)
    machine.need("compute", "achieved_fraction")
    share = machine.compute.achieved_fraction
    assert share is not None
    low, high = share.low or share.value, share.high or share.value
    kind: Kind = "assumed" if share.evidence == "assumed" else "modelled"
    return Band(value=peak * share.value, low=peak * low, high=peak * high, kind=kind)


def _flops_per_token(model: ModelDescriptor, lengths: tuple[float, float]) -> Band:
    """Of one output token and its share of the prompt: 2 · N_active each, and attention."""
    input_tokens, output_tokens = lengths
    share = input_tokens / output_tokens
    attended = input_tokens + output_tokens / 2 + share * input_tokens / 2
    attention = model.attention_flops_per_context_token * attended
    return exactly(2.0 * model.active_parameters * (1 + share) + attention, "modelled")


def measured_basis(
    selector: str,
    database: str | None,
    machine: MachineProfile,
    model: ModelDescriptor,
    tpot_s: float | None,
) -> Basis:
    """From stored runs: joules, rate and lengths as they were, compute as what the rate took.

    Raises:
        UsageError: If no run of the selection is of the machine and the model.
    """
    measured = _of_machine(selector, database, machine.name, model.name)
    points = _points(measured)
    lengths = _lengths(measured, selector)
    met = within_slo(points, tpot_s)
    chosen = lowest_energy(met)
    flops = _flops_per_token(model, lengths)
    return Basis(
        mode="as_measured",
        points=points,
        met=met,
        chosen=chosen,
        compute_flops=chosen.output_tokens_per_s.times(flops.value),
        flops_per_token=flops,
        lengths=lengths,
    )


def _lengths(measured: Sequence[PointResult], selector: str) -> tuple[float, float]:
    """Mean prompt and answer of the requests of some runs [tokens]."""
    totals = [point.facts.totals for point in measured]
    counts = [each.request_count if each else None for each in totals]
    inputs = [each.input_tokens if each else None for each in totals]
    if None in counts or None in inputs or not sum(c or 0 for c in counts):
        raise UsageError(f"--runs {selector}: a run does not tell its requests or their prompts")
    requests = sum(count or 0.0 for count in counts)
    outputs = sum(each.output_tokens for each in totals if each)
    return sum(each or 0.0 for each in inputs) / requests, outputs / requests


def measured_points(
    selector: str, database: str | None, machine: str, model: str
) -> list[OperatingPoint]:
    """Operating points of stored runs of one machine and model, with the intervals of each.

    Args:
        selector: Which runs.
        database: Where; None: the usual one.
        machine: Name of a hardware profile.
        model: Name of a model descriptor.

    Raises:
        UsageError: If no run of the selection is of the machine and the model, or none has joules.
    """
    return _points(_of_machine(selector, database, machine, model))


def _of_machine(selector: str, database: str | None, machine: str, model: str) -> list[PointResult]:
    runs = evaluate(load_runs(database_url(database), selector))
    mine = [point for point in runs if _of(point) == (machine, model)]
    if not mine:
        seen = sorted({" with ".join(_of(point)) for point in runs})
        raise UsageError(
            f"runs {selector}: no run of {machine} with {model}; there is {'; '.join(seen)}"
        )
    known = [p for p in mine if p.facts.metrics[ENERGY].value and p.facts.metrics[RATE].value]
    if not known:
        raise UsageError(
            f"runs {selector}: none has both joules and a rate; wattbench check says why"
        )
    return known


def _points(measured: Sequence[PointResult]) -> list[OperatingPoint]:
    return [_point(p, row) for p, row in zip(measured, rows_of(measured), strict=True)]


def _of(point: PointResult) -> tuple[str, str]:
    record = point.facts.runs[0].raw.record
    return str(record.hardware.get("name")), record.engine.model.rpartition("/")[2].lower()


def _point(point: PointResult, row: dict[str, str | float]) -> OperatingPoint:
    metrics, domain = point.facts.metrics, point.facts.headline.domain
    modelled = point.facts.headline.kind in ("modelled", "nameplate")
    kind: Kind = "modelled" if modelled else "measured"
    return OperatingPoint(
        concurrency_count=float(row[CONCURRENCY]),
        device_count=int(row["machine_count"]),
        output_tokens_per_s=_band(metrics[RATE], "measured"),
        energy_per_output_token_joules=_band(metrics[ENERGY], kind),
        boundary=domain.boundary if domain else "board",
    )


def _band(estimate: Estimate, kind: Kind) -> Band:
    """An estimate with its interval; the stated 95 % are taken as 90 %, which is the wider side."""
    value = float(estimate.value or 0.0)
    low, high = estimate.low, estimate.high
    if low is None or high is None or low <= 0:
        low, high = value * (1 - UNSTATED_FRACTION), value * (1 + UNSTATED_FRACTION)
    return Band(value=value, low=min(low, value), high=max(high, value), kind=kind)
