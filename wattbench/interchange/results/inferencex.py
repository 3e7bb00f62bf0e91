"""InferenceX (InferenceMAX before): raw files, ``agg_<name>.json``, the sidecar of its power, rows.

Files of one name are one run: ``<name>.json`` as the client wrote it, ``agg_<name>.json`` with
figures per GPU, and ``power_validation_<name>.json``. Rows come as a list or one per line, flat or
with their figures under ``metrics``. Whether its power counts is decided by ``inferencex_power``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wattbench.core.run import Json, Mode
from wattbench.interchange.results import vllm
from wattbench.interchange.results.fields import Fields
from wattbench.interchange.results.glance import Glance
from wattbench.interchange.results.inferencex_power import (
    Devices,
    note_counters,
    reject_power,
    take_power,
    taken_window_s,
)
from wattbench.interchange.results.measurement import Measurement
from wattbench.interchange.results.runs import moved

NAME = "inferencex"
_RAW = {"benchmark_start_time_unix", "benchmark_end_time_unix", "total_output_tokens"}
_SIDECAR = {"power_valid", "benchmark_window", "integration_method"}
_AGG = {"tput_per_gpu", "conc"}
_STATISTIC = re.compile(r"^(mean|median|std|p[0-9.]+)_(ttft|tpot|itl|e2el|intvty)$")
_LATENCIES = {"ttft": "ttft_s", "tpot": "tpot_s", "itl": "itl_s", "e2el": "e2e_s"}
_PREFIX = re.compile(r"^(agg_|power_validation_)?(.*?)(\.jsonl?)?(\.gz)?$")
_SHAPE = ("tp", "ep", "isl", "osl", "offload_mode", "kv_offloading", "benchmark_type")
GOODPUT = "request_goodput:"
"""The key of the goodput, colon and all."""


@dataclass(slots=True)
class _Run:
    """Documents of one name."""

    raw: tuple[str, Any] | None = None
    agg: tuple[str, Any] | None = None
    sidecar: tuple[str, Any] | None = None
    files: set[str] = field(default_factory=set)


def sniff(glance: Glance) -> str | None:
    """The layout, None if it is another tool's file."""
    first = glance.first[0] if isinstance(glance.first, list) and glance.first else glance.first
    return _layout(first) if isinstance(first, dict) else None


def _layout(value: Mapping[str, Any]) -> str | None:
    keys = value.keys()
    if keys >= _SIDECAR:
        return "power validation"
    if keys >= _RAW:
        return "raw"
    metrics = value.get("metrics")
    if isinstance(metrics, dict) and "tput_per_gpu" in metrics and "conc" in keys:
        return "row"
    if not keys >= _AGG:
        return None
    return "agentic agg" if "scenario_type" in keys else "agg"


def read(glances: Sequence[Glance]) -> Iterator[Measurement]:
    """One measurement for each name of files, and for each row."""
    runs: dict[str, _Run] = {}
    for glance in glances:
        for place, value in glance.objects():
            layout = _layout(value) if isinstance(value, dict) else None
            name = _PREFIX.sub(r"\2", glance.document.path.name)
            if isinstance(glance.first, list) or glance.form == "lines":
                name = place  # each row is a run of its own
            run = runs.setdefault(name, _Run())
            kind = {"raw": "raw", "power validation": "sidecar"}.get(layout or "", "agg")
            if getattr(run, kind) is not None:
                run = runs.setdefault(place, _Run())
            setattr(run, kind, (place, value))
            run.files.add(glance.document.path.name)
    for run in runs.values():
        yield _measurement(run)


def _measurement(run: _Run) -> Measurement:
    parts = [part for part in (run.agg, run.raw, run.sidecar) if part is not None]
    root = Fields(parts[0][0], {})  # what one file tells the next does not tell again
    fields = {
        kind: Fields(*part, parent=root, prefix="" if part is parts[0] else kind)
        for kind, part in (("agg", run.agg), ("raw", run.raw), ("sidecar", run.sidecar))
        if part is not None
    }
    agg, raw, sidecar = fields.get("agg"), fields.get("raw"), fields.get("sidecar")
    found = Measurement(
        tool=NAME, layout=_layout(parts[0][1]) or "agg", files=tuple(sorted(run.files))
    )
    if agg is not None:
        found = _taken_agg(agg, sidecar, found)
    if raw is not None:
        found = _taken_raw(raw, found)
    window_s = found.window_s
    if sidecar is not None:
        told_s = taken_window_s(sidecar, alone=agg is None)
        note_counters(sidecar)
        window_s = window_s or told_s
    energy = any(figure.metric.endswith(("_joules", "_watts")) for figure in root.reported)
    return dataclasses.replace(
        found,
        clock="unix" if window_s else None,
        window_s=window_s,
        reported=root.reported,
        notes=root.notes(),
        boundary="board" if energy else None,
        energy_method="power of each GPU about once a second, integrated" if energy else "",
    )


def _taken_agg(agg: Fields, sidecar: Fields | None, found: Measurement) -> Measurement:
    metrics = (agg.nested("metrics") if found.layout == "row" else None) or agg
    devices = _devices(agg, split_by="disagg" if found.layout == "row" else "is_multinode")
    _take_rates(metrics, devices)
    _take_latencies(metrics)
    reason = reject_power(metrics, sidecar, devices)
    take_power(metrics, sidecar, devices, reason)
    shape: dict[str, Json] = {}
    for name in _SHAPE:
        if name in agg:
            agg.note("taken", name)
            shape[name] = agg.raw(name)
    users = agg.count("conc")
    spec = agg.text("spec_decoding") or agg.text("spec_method")
    return dataclasses.replace(
        found,
        model=agg.text("model") or agg.text("infmax_model_prefix"),
        engine=agg.text("framework"),
        hardware=agg.text("hw") or agg.text("hardware"),
        mode=Mode(precision=agg.text("precision"), speculative=spec),
        device_count=devices.all_count,
        operating_point={} if users is None else {"concurrency": users},
        workload={"name": agg.text("scenario_type") or NAME, **shape},
    )


def _devices(agg: Fields, split_by: str) -> Devices:
    """How many GPUs a figure per GPU was divided by."""
    split = str(agg.raw(split_by)).lower() in ("true", "1")
    prefill, decode = agg.count("num_prefill_gpu"), agg.count("num_decode_gpu")
    if split:
        known = prefill is not None and decode is not None
        total = (prefill or 0) + (decode or 0) if known else None
        return Devices(
            all_count=total or None, prefill_count=prefill or total, decode_count=decode or total
        )
    parts = [agg.count(name) for name in ("tp", "pp", "pcp_size")]
    tp, pp, pcp = parts
    # An aggregated row of the API tells the same GPUs as those of both roles.
    total = decode if tp is None else tp * (pp or 1) * (pcp or 1)
    return Devices(all_count=total or None, prefill_count=total or None, decode_count=total or None)


def _take_rates(metrics: Fields, devices: Devices) -> None:
    rates = (
        ("output_tput_per_gpu", "output_tokens_per_s", devices.decode_count, ""),
        ("input_tput_per_gpu", "input_tokens_per_s", devices.prefill_count, ""),
        ("tput_per_gpu", "total_tokens_per_s", devices.all_count, "; prompt tokens count"),
    )
    for name, metric, count, more in rates:
        if name not in metrics:
            continue
        if count is None:
            metrics.note("refused", name, "per GPU, and the file does not tell of how many")
            continue
        metrics.report(name, metric, scale_ratio=count, why=f"times {count} GPUs{more}")


def _take_latencies(metrics: Fields) -> None:
    for name in list(metrics):
        found = _STATISTIC.match(name)
        if found is None:
            continue
        statistic, of = found.groups()
        if of == "intvty":
            _take_interactivity(metrics, name, statistic)
        elif metrics.number(name) == 0.0 and statistic != "std":
            metrics.note("refused", name, "0 s of an empty sample")
        else:
            statistic = {"median": "p50", "std": "sd"}.get(statistic, statistic)
            metrics.report(name, _LATENCIES[of], statistic)


def _take_interactivity(metrics: Fields, name: str, statistic: str) -> None:
    """1 / TPOT of the same statistic: a high percentile of it is the slow tail."""
    if statistic in ("std", "mean"):
        reasons = {
            "std": "1 / a deviation has no meaning",
            "mean": "1 / the mean is no mean of 1 / x",
        }
        metrics.note("refused", name, reasons[statistic])
        return
    if metrics.number(name) == 0.0:
        metrics.note("refused", name, "0 of an empty sample")
        return
    metric = "interactivity_tokens_per_s_per_user"
    if statistic == "median":
        metrics.report(name, metric)
        return
    mirrored = f"p{100 - float(statistic[1:]):.6g}"
    why = f"1 / {statistic} of TPOT is the slow tail: {mirrored} of the rate"
    metrics.report(name, metric, mirrored, why=why)


def _taken_raw(own: Fields, found: Measurement) -> Measurement:
    own.report("duration", "duration_s")
    vllm.take_counts(own)
    own.report(GOODPUT, "goodput_requests_per_s")
    vllm.take_latencies(own)
    start_s, end_s = (own.number(f"benchmark_{edge}_time_unix") for edge in ("start", "end"))
    window_s = None
    if start_s is not None and end_s is not None:
        if end_s <= start_s:
            raise own.bad("benchmark_end_time_unix", end_s, "not after the start")
        window_s = (start_s, end_s)
        own.note("taken", "benchmark_start_time_unix")
        own.note("taken", "benchmark_end_time_unix")
    requests = None
    if "ttfts" in own and "start_times" in own and window_s is not None:
        results = vllm.detailed(own)
        by_s = window_s[0] - min((result.sent_s for result in results), default=0.0)
        own.note("converted", "start_times", "moved so that the first begins with the window")
        requests = lambda: (moved(result, by_s) for result in results)  # noqa: E731
    elif "ttfts" in own:
        own.note("refused", "ttfts", "no start of a request is told, so none can be placed")
    point = vllm.operating_point(own)
    return dataclasses.replace(
        found,
        model=found.model or own.text("model_id"),
        engine=found.engine or own.text("backend"),
        operating_point=found.operating_point or point,
        window_s=window_s,
        requests=requests,
    )
