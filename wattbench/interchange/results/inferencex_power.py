"""The power of InferenceX: accepted by its own schema and its own gate, refused with the reason.

Source: InferenceX 843c6254, power_metric_schema_version 2 and power_validation schema 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from wattbench.interchange.results.fields import Fields

POWER_SCHEMA = 2
SIDECAR_SCHEMA = 1
ROUNDED_JOULES = 5.01e-4
"""Watts and joules are rounded to three places."""
ROUNDED_RATIO = 5.01e-7
"""Joules of a token or a request are rounded to six."""
POWER_TOLERANCE_RATIO = 2e-6
COUNTER_TOLERANCE_RATIO = 0.05
"""A counter and the integral of samples may differ by this, where the file states no tolerance."""
_ROLE_LOCAL = "an old power schema: joules of some roles over tokens of all"
_IN, _OUT = "total_input_tokens", "total_output_tokens"
_JOULES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "joules_per_successful_query": ("energy_per_request_joules", ("completed",)),
    "joules_per_input_token": ("energy_per_input_token_joules", (_IN,)),
    "joules_per_output_token": ("energy_per_output_token_joules", (_OUT,)),
    "joules_per_total_token": ("energy_per_total_token_joules", (_IN, _OUT)),
}
_ROLES = {
    "prefill_gpu_energy_j": "prefill_energy_joules",
    "decode_gpu_energy_j": "decode_energy_joules",
    "prefill_joules_per_input_token": "prefill_energy_per_input_token_joules",
    "decode_joules_per_output_token": "decode_energy_per_output_token_joules",
    "prefill_avg_power_w": "prefill_power_per_device_watts",
    "decode_avg_power_w": "decode_power_per_device_watts",
}
_HOST = {"total_cpu_energy_j": "cpu_energy_joules", "total_module_energy_j": "module_energy_joules"}
_POWER = (
    *("avg_power_w", "avg_total_gpu_power_w", "total_gpu_energy_j"),
    *_JOULES,
    *_ROLES,
    *_HOST,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """What figures per GPU were divided by; None if unknown.

    Attributes:
        all_count: All GPUs.
        prefill_count: Those of prompts; all of them where they are not apart.
        decode_count: Those of answers; all of them where they are not apart.
    """

    all_count: int | None
    prefill_count: int | None
    decode_count: int | None


def reject_power(metrics: Fields, sidecar: Fields | None, devices: Devices) -> str | None:
    """Why no power of the file counts, None if it does."""
    version = metrics.count("power_metric_schema_version")
    valid = metrics.raw("power_valid")
    side_valid = sidecar.raw("power_valid") if sidecar is not None else None
    if version is not None and version > POWER_SCHEMA:
        return f"power_metric_schema_version {version} is not known (up to {POWER_SCHEMA} is)"
    if _refuted(valid) or _refuted(side_valid):
        reasons = (sidecar.items("reasons") if sidecar is not None else None) or ["no reason given"]
        return f"InferenceX holds its power invalid: {', '.join(map(str, reasons))}"
    if version == POWER_SCHEMA and valid is None:
        return "power_valid is missing, so nobody tells whether its power is valid"
    if sidecar is not None:
        side_version = sidecar.count("schema_version")
        if side_version != SIDECAR_SCHEMA:
            return f"schema_version {side_version} of the power validation is not known"
        wrong = itertools.chain(
            _disagreements(metrics, sidecar), _miscounts(sidecar, devices.all_count)
        )
        return next(wrong, None)
    return None


def _refuted(valid: object) -> bool:
    return valid is not None and valid not in (1, True)


def _miscounts(sidecar: Fields, all_count: int | None) -> Iterator[str]:
    """Other GPUs were metered than worked."""
    observed, each = sidecar.count("observed_gpu_count"), sidecar.nested("per_gpu_energy_j")
    if observed is None and each is not None:
        observed = len(list(each))
    others = (("expected", sidecar.count("expected_gpu_count")), ("working", all_count))
    for what, count in others:
        if observed is not None and count is not None and observed != count:
            yield f"the power is of {observed} GPUs, and {count} were {what}"


def note_counters(sidecar: Fields) -> None:
    """Say it where the GPUs' own counters of energy refute the samples."""
    check = sidecar.nested("accumulator_check")
    if check is None or check.raw("available") is False:
        return
    names = ("accumulator_delta_j", "integrated_stream_j")
    counter_joules, samples_joules = (check.number(name) for name in names)
    error, limit = check.number("relative_error"), check.number("tolerance")
    if error is None and counter_joules is not None and samples_joules:
        error = counter_joules / samples_joules - 1
    beyond = error is not None and abs(error) > (
        COUNTER_TOLERANCE_RATIO if limit is None else limit
    )
    if check.raw("within_tolerance") is False or beyond:
        apart = "" if error is None else f", {abs(error):.1%} apart"
        why = (
            f"the GPUs' counters say {_joules(counter_joules)} and the samples "
            f"{_joules(samples_joules)}{apart}: one of them is wrong"
        )
        check.note("refused", names[0], why)


def _joules(value_joules: float | None) -> str:
    return "an energy not told" if value_joules is None else f"{value_joules:.6g} J"


def _disagreements(metrics: Fields, sidecar: Fields) -> Iterator[str]:
    """Figures of the two files that do not fit together."""
    energy_joules = metrics.number("total_gpu_energy_j")
    window = sidecar.nested("benchmark_window")
    if window is None or energy_joules is None:
        return
    each = sidecar.nested("per_gpu_energy_j")
    if each is not None:
        parts = [each.number(name) or 0.0 for name in each]
        if abs(sum(parts) - energy_joules) > ROUNDED_JOULES * (1 + len(parts)):
            yield f"total_gpu_energy_j {energy_joules} is not the {sum(parts)} of all GPUs"
    stated = sidecar.nested("metrics")
    for name in ("total_gpu_energy_j", "avg_total_gpu_power_w"):
        here, there = metrics.number(name), stated.number(name) if stated is not None else None
        if here is not None and there is not None and abs(here - there) > ROUNDED_JOULES:
            yield f"{name} is {here}, and {there} in the power validation"
    duration_s = window.number("integration_duration_s")
    power_watts = metrics.number("avg_total_gpu_power_w")
    if duration_s and power_watts is not None:
        tolerance_watts = max(ROUNDED_JOULES, POWER_TOLERANCE_RATIO * power_watts)
        tolerance_watts += ROUNDED_JOULES / duration_s
        if abs(energy_joules / duration_s - power_watts) > tolerance_watts:
            yield f"avg_total_gpu_power_w {power_watts} is not energy / duration"
    if metrics.count("power_metric_schema_version") == POWER_SCHEMA:
        for name, (_, counts) in _JOULES.items():
            yield from _ratio_disagreements(metrics, name, energy_joules, window, counts)


def _ratio_disagreements(
    metrics: Fields, name: str, energy_joules: float, window: Fields, names: tuple[str, ...]
) -> Iterator[str]:
    ratio, counts = metrics.number(name), [window.count(each) or 0 for each in names]
    if ratio is None:
        return
    if not all(counts):
        yield f"{name} is given, and a count that it needs is not"
        return
    found = energy_joules / sum(counts)
    if abs(found - ratio) > ROUNDED_RATIO + ROUNDED_JOULES / sum(counts):
        yield f"{name} is {ratio}, and energy / count {found:.7g}"


def take_power(
    metrics: Fields, sidecar: Fields | None, devices: Devices, refused: str | None
) -> None:
    """Take the figures of power, or refuse each with the reason."""
    present = [name for name in _POWER if name in metrics]
    if refused is not None:
        told = metrics.raw("power_valid")
        told = sidecar.raw("power_valid") if told is None and sidecar is not None else told
        for name in present or ["power_valid"]:
            metrics.note("refused", name, refused, claimed=not _refuted(told))
        return
    metrics.report("total_gpu_energy_j", "energy_joules")
    power_watts = metrics.report("avg_total_gpu_power_w", "mean_power_watts")
    if power_watts is None and devices.all_count:
        count = devices.all_count
        why = f"times {count} GPUs"
        metrics.report("avg_power_w", "mean_power_watts", scale_ratio=count, why=why)
    if power_watts and sidecar is None:
        metrics.report(
            "total_gpu_energy_j",
            "energy_duration_s",
            scale_ratio=1 / power_watts,
            why="over avg_total_gpu_power_w",
        )
    if power_watts is not None:
        metrics.report("avg_power_w", "mean_power_per_device_watts")
    _take_each(sidecar)
    legacy = metrics.count("power_metric_schema_version") != POWER_SCHEMA
    for name in present:
        metric = _JOULES.get(name, ("", ()))[0] or _ROLES.get(name) or _HOST.get(name)
        if metric is None:
            continue
        if legacy and "joules_per_" in name:
            metrics.note("refused", name, _ROLE_LOCAL)
        elif name in _HOST and metrics.raw("cpu_power_valid") not in (1, True):
            metrics.note("refused", name, "cpu_power_valid is not 1", claimed=False)
        else:
            metrics.report(name, metric)


def _take_each(sidecar: Fields | None) -> None:
    """The energy of each GPU: one that idles in the sum can be told by it."""
    each = sidecar.nested("per_gpu_energy_j") if sidecar is not None else None
    if each is not None:
        for name in each:
            each.report(name, "energy_joules", f"device:{name}")


def taken_window_s(sidecar: Fields, *, alone: bool) -> tuple[float, float] | None:
    """The window [Unix s]; counts are taken as well, and of a sidecar alone its energy."""
    window = sidecar.nested("benchmark_window")
    if window is None:
        return None
    for name, metric in (
        ("reported_duration_s", "duration_s"),
        ("integration_duration_s", "energy_duration_s"),
        ("completed", "completed_count"),
        ("total_input_tokens", "input_tokens_count"),
        ("total_output_tokens", "output_tokens_count"),
    ):
        window.report(name, metric)
    stated = sidecar.nested("metrics")
    if alone:
        stated = stated or Fields(sidecar.place, {}, parent=sidecar)
        devices = Devices(all_count=None, prefill_count=None, decode_count=None)
        take_power(stated, sidecar, devices, reject_power(stated, sidecar, devices))
    edges = window.number("start_time_unix"), window.number("end_time_unix")
    if edges[0] is None or edges[1] is None:
        return None
    if edges[1] <= edges[0]:
        raise window.bad("end_time_unix", edges[1], "not after the start")
    window.note("taken", "start_time_unix")
    window.note("taken", "end_time_unix")
    return edges[0], edges[1]
