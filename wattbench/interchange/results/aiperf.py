"""AIPerf: ``profile_export_aiperf.json`` (totals) and ``profile_export.jsonl`` (each request).

Those of one folder are one measurement. Each block of the totals tells its own unit, which is
trusted. ``inter_token_latency`` is (latency − TTFT) / (tokens − 1), so TPOT. Read as AIPerf 0.13
writes them (schema 1.4) and as its documentation has it (schema 1.5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from wattbench.core.run import Json, ReportedFigure
from wattbench.interchange.results import aiperf_records
from wattbench.interchange.results.aiperf_records import S_PER_UNIT, Seen
from wattbench.interchange.results.document import BadDocument
from wattbench.interchange.results.fields import Fields
from wattbench.interchange.results.glance import BESIDE, Glance
from wattbench.interchange.results.measurement import Fate, Measurement

NAME = "aiperf"
_LATENCIES = {
    "time_to_first_token": "ttft_s",
    "inter_token_latency": "tpot_s",
    "inter_chunk_latency": "itl_s",
    "request_latency": "e2e_s",
}
_TOTALS = {
    "output_token_throughput": "output_tokens_per_s",
    "request_throughput": "requests_per_s",
    "goodput": "goodput_requests_per_s",
    "benchmark_duration": "duration_s",
    "request_count": "completed_count",
    "error_request_count": "failed_count",
    "good_request_count": "good_count",
    "total_isl": "input_tokens_count",
    "total_osl": "output_tokens_count",
}
_OLD_TOTALS = {
    "input_sequence_length": "input_tokens_count",
    "output_sequence_length": "output_tokens_count",
}
_ENERGY = {
    "total_gpu_energy": "energy_joules",
    "total_gpu_power": "mean_power_watts",
    "energy_per_output_token": "energy_per_output_token_joules",
    "energy_per_total_token": "energy_per_total_token_joules",
    "energy_per_request": "energy_per_request_joules",
}
_VENDORS = ("nvidia_", "amd_")
_UNITS: Mapping[str, float] = {
    **S_PER_UNIT,
    "tokens": 1.0,
    "requests": 1.0,
    "count": 1.0,
    "tokens/sec": 1.0,
    "requests/sec": 1.0,
    "tokens/sec/user": 1.0,
    "W": 1.0,
    "mW": 1e-3,
    "J": 1.0,
    "mJ": 1e-3,
    "MJ": 1e6,
    "mJ/token": 1e-3,
    "joules/token": 1.0,
    "J/token": 1.0,
    "joules/request": 1.0,
    "mJ/request": 1e-3,
    "J/request": 1.0,
}
"""This project's unit over that of a block."""
_ENERGY_METHOD = (
    "GPU energy by AIPerf's telemetry, over its own window of scrapes, which ends up to 0.7 s "
    "after the last request"
)


def sniff(glance: Glance) -> str | None:
    """The layout, None if it is another tool's file."""
    if glance.form == "text":
        return BESIDE if _text_beside(glance.first) else None
    keys = glance.keys
    metadata = glance.first.get("metadata") if keys else None
    if isinstance(metadata, dict) and "request_start_ns" in metadata:
        return "records" if "metrics" in keys else BESIDE
    if "aggregation_type" in keys or (
        isinstance(metadata, dict) and "aggregation_type" in metadata
    ):
        return BESIDE if _has_runs_beside(glance) else "aggregate"
    if "aiperf_version" in keys and {"request_latency", "request_throughput"} & keys:
        return BESIDE if _is_phase(glance) else "totals"
    return BESIDE if "aiperf_version" in keys or _json_beside(glance.first) else None


def read(glances: Sequence[Glance]) -> Iterator[Measurement]:
    """One measurement for each run of the folder."""
    for glance in glances:
        if sniff(glance) == "aggregate":
            raise BadDocument(
                f"{glance.document.path}: means of several runs (--num-profile-runs), of which no "
                f"total follows; give the profile_export_aiperf.json and profile_export.jsonl of "
                f"each run, which AIPerf writes into profile_runs/run_NNNN/"
            )
    totals = [glance for glance in glances if sniff(glance) == "totals"]
    records = [glance for glance in glances if sniff(glance) == "records"]
    if len(totals) == len(records) == 1:
        yield _measurement(totals[0], records[0])
        return
    by_name = {_run_name(glance): glance for glance in records}
    for one in totals:
        yield _measurement(one, by_name.pop(_run_name(one), None))
    for rest in by_name.values():
        yield _measurement(None, rest)


def _run_name(glance: Glance) -> str:
    """What the files of one run have in common, where a folder holds those of several."""
    return glance.document.path.name.removesuffix(".gz").rpartition(".")[0].removesuffix("_aiperf")


def _is_phase(glance: Glance) -> bool:
    """Whether these are the totals of one phase, which AIPerf writes again below those of a run."""
    place = glance.document.path.parents
    return len(place) > 2 and (place[2] / "phase_manifest.json").exists()


def _has_runs_beside(glance: Glance) -> bool:
    """Whether the runs that an aggregate is of lie where AIPerf writes them."""
    base = glance.document.path.resolve().parent.parent
    return any((base / "profile_runs").glob("*")) or any(base.glob("*/profile_runs"))


def _text_beside(text: str) -> bool:
    first = text.lstrip().partition("\n")[0].lower()
    return first.startswith(("metric,avg,min,max", "metric,mean,std,min")) or "aiperf" in first


def _json_beside(value: object) -> bool:
    """Prompts (``inputs.json``), phases, metrics of the server by phase, telemetry of GPUs."""
    if not isinstance(value, dict):
        return False
    for name, inside in (("data", "payloads"), ("phases", "metrics_json")):
        items = value.get(name)
        if isinstance(items, list) and items and isinstance(items[0], dict) and inside in items[0]:
            return True
    return value.keys() >= {"data", "phase", "schema_version"} or (
        value.keys() >= {"timestamp_ns", "telemetry_data"}
    )


def _measurement(totals: Glance | None, records: Glance | None) -> Measurement:
    fields = _fields(totals, records)
    settings = _Settings(fields.raw("input_config"))
    seen = aiperf_records.seen(records) if records else Seen()
    window_s = seen.window_s or _told_window_s(fields)
    if totals is not None:
        _take_totals(fields)
        _take_remarks(fields)
    if records is not None:
        _note_records(fields, seen, records.first.get("metrics"))
    energy = _take_energy(fields) if totals is not None else False
    gpus = _gpus(fields.raw("telemetry_data"))
    requests = None
    if records is not None:
        requests = lambda: aiperf_records.results(  # noqa: E731 - a name would say no more
            records, open_loop=settings.open_loop
        )
    return Measurement(
        tool=NAME,
        tool_version=fields.text("aiperf_version"),
        layout="+".join(["totals"] * (totals is not None) + ["records"] * (records is not None)),
        files=tuple(one.document.path.name for one in (totals, records) if one is not None),
        model=settings.model,
        hardware=gpus[0] if gpus else None,
        device_count=len(gpus) or None,
        operating_point=settings.operating_point,
        clock="unix" if window_s else None,
        window_s=window_s,
        requests=requests,
        gaps_spread=seen.spread,
        reported=(*fields.reported, *([] if totals else _sums(seen))),
        boundary="board" if energy else None,
        energy_method=_ENERGY_METHOD if energy else "",
        notes=fields.notes(),
    )


def _fields(totals: Glance | None, records: Glance | None) -> Fields:
    if totals is not None:
        if totals.form != "json" or not isinstance(totals.first, dict):
            raise BadDocument(f"{totals.document.path}: holds more than one object")
        return Fields(str(totals.document.path), totals.first)
    assert records is not None
    return Fields(str(records.document.path), {})


class _Settings:
    """The load, out of ``input_config``: phases of a new release, flags of an old one."""

    def __init__(self, told: object) -> None:
        config = told if isinstance(told, dict) else {}
        phases = config.get("phases")
        phases = [p for p in phases if isinstance(p, dict)] if isinstance(phases, list) else []
        measured = [p for p in phases if p.get("kind", p.get("name")) == "profiling"]
        load = measured[0] if measured else config.get("loadgen")
        load = load if isinstance(load, dict) else {}
        rate = load.get("rate", load.get("request_rate"))
        self.operating_point: dict[str, Json] = {}
        if _is_number(load.get("concurrency")):
            self.operating_point["concurrency"] = load["concurrency"]
        if rate is not None and _is_number(rate):
            self.operating_point["rate_per_s"] = float(rate)
        self.open_loop = _is_number(rate) or load.get("type") == "fixed_schedule"
        self.model = _model(config)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _model(config: Mapping[str, Any]) -> str | None:
    models, endpoint = config.get("models"), config.get("endpoint")
    items = models.get("items") if isinstance(models, dict) else None
    names = [item.get("name") for item in items if isinstance(item, dict)] if items else []
    if not names and isinstance(endpoint, dict):
        names = endpoint.get("model_names") or []
    return names[0] if names and isinstance(names[0], str) else None


def _take_totals(fields: Fields) -> None:
    for name, metric in _LATENCIES.items():
        _take_block(fields, name, metric)
    _take_block(fields, "output_token_throughput_per_user", "interactivity_tokens_per_s_per_user")
    for name, metric in _TOTALS.items():
        _take(fields.nested(name), fields, name, "avg", metric)
    taken = {figure.metric for figure in fields.reported}
    for name, metric in _OLD_TOTALS.items():
        if metric not in taken:
            _take(fields.nested(name), fields, name, "sum", metric)


def _take_block(fields: Fields, name: str, metric: str) -> None:
    """Every statistic of a block; that of no sample is unknown, whatever stands there."""
    block = fields.nested(name)
    if block is None:
        return
    if block.number("count") == 0:
        fields.note("refused", name, "of an empty sample")
        return
    for statistic in block:
        if statistic in ("avg", "min", "max", "std") or statistic[1:].isdecimal():
            _take(block, fields, name, statistic, metric)


def _take(block: Fields | None, fields: Fields, name: str, statistic: str, metric: str) -> None:
    if block is None:
        return
    unit = block.text("unit")
    if unit is None or unit not in _UNITS:
        fields.note("refused", name, f"its unit {unit!r} is not known")
        return
    total = metric.endswith(("_count", "_per_s", "duration_s")) or metric in _ENERGY.values()
    canonical = {"avg": "mean", "std": "sd"}.get(statistic, statistic)
    block.report(statistic, metric, "total" if total else canonical, scale_ratio=_UNITS[unit])


def _take_energy(fields: Fields) -> bool:
    """Energy of the boards, if there is any; of two vendors only what adds up."""
    vendors = [v for v in _VENDORS if f"{v}total_gpu_energy" in fields]
    if len(vendors) > 1:
        for name in fields:
            if name.startswith(_VENDORS):
                fields.note("refused", name, "of two vendors, of which neither did all the work")
        return False
    for vendor in vendors:
        for name, metric in _ENERGY.items():
            _take(fields.nested(vendor + name), fields, vendor + name, "avg", metric)
    return any(figure.metric == "energy_joules" for figure in fields.reported)


def _take_remarks(fields: Fields) -> None:
    if fields.raw("was_cancelled") is True or fields.raw("is_complete") is False:
        fields.note("taken", "was_cancelled", "the run was cancelled or is incomplete")
    if "time_to_first_token" not in fields:
        fields.note("kept", "time_to_first_token", "not in the file: the run did not stream")


def _note_records(fields: Fields, seen: Seen, metrics: object) -> None:
    """What became of the records; the first stands for the fields of all."""
    for name in metrics if isinstance(metrics, dict) else ():
        fate: Fate = "taken" if name in aiperf_records.TAKEN else "kept"
        fields.note(fate, f"records.{name}")
    if seen.window_s is None:
        raise BadDocument(f"{fields.place}: no record of it is of the profiling phase")
    if seen.spread:
        why = "a record lists no gaps: its tokens are spread evenly, and a mean gap is no ITL"
        fields.note("converted", "inter_chunk_latency", why)
    if not seen.usage and seen.completed_count:
        why = "no usage of the server: AIPerf tokenised the text of the answer itself"
        fields.note("taken", "output_sequence_length", why)


def _sums(seen: Seen) -> list[ReportedFigure]:
    """Sums of records that have no totals beside them."""
    start_s, end_s = seen.window_s or (0.0, 0.0)
    sums: dict[str, float | None] = {
        "duration_s": end_s - start_s,
        "completed_count": seen.completed_count,
        "failed_count": seen.failed_count,
        "input_tokens_count": seen.input_tokens,
        "output_tokens_count": seen.output_tokens,
    }
    if seen.output_tokens is not None and end_s > start_s:
        sums["output_tokens_per_s"] = seen.output_tokens / (end_s - start_s)
    return [
        ReportedFigure(metric=metric, statistic="total", value=value, field="sum of the records")
        for metric, value in sums.items()
        if value is not None
    ]


def _told_window_s(fields: Fields) -> tuple[float, float] | None:
    """``start_time`` and ``end_time`` where they tell their zone [Unix s]."""
    instants = []
    for name in ("start_time", "end_time"):
        text = fields.text(name)
        try:
            instant = datetime.fromisoformat(text) if text else None
        except ValueError as error:
            raise fields.bad(name, text, "not a time of ISO 8601") from error
        if instant is None:
            return None
        if instant.tzinfo is None:
            fields.note("refused", name, "local time without a zone, so when it was is unknown")
            return None
        instants.append(instant.timestamp())
    return (instants[0], instants[1]) if instants[1] > instants[0] else None


def _gpus(told: object) -> list[str]:
    """Names of the GPUs that telemetry watched."""
    endpoints = told.get("endpoints") if isinstance(told, dict) else None
    found = {}
    for endpoint in endpoints.values() if isinstance(endpoints, dict) else ():
        gpus = endpoint.get("gpus") if isinstance(endpoint, dict) else None
        for key, gpu in (gpus or {}).items() if isinstance(gpus, dict) else ():
            if isinstance(gpu, dict):
                found[str(gpu.get("gpu_uuid") or key)] = str(gpu.get("gpu_name") or "GPU")
    return list(found.values())
