"""``inference-perf``: a summary, a file per stage, and a file of requests, in one folder; seconds.

Source: kubernetes-sigs/inference-perf 7de5ef2. Each stage is a load; the summary mixes them and
counts only where there are none. Requests do not tell their stage: stages run one after another,
so the number of requests of each tells whose they are. Times are of ``perf_counter``, which on
Linux is the monotonic clock of the host. A token has the time of the chunk that brought it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from wattbench.core.load import InferenceRequest, RequestResult
from wattbench.core.run import Json, stated
from wattbench.interchange.results.document import BadDocument
from wattbench.interchange.results.fields import Fields
from wattbench.interchange.results.glance import Glance
from wattbench.interchange.results.measurement import Measurement, Note

NAME = "inference-perf"
_REQUEST = {"start_time", "end_time", "info"}
_LATENCIES = {
    "request_latency": "e2e_s",
    "time_to_first_token": "ttft_s",
    "time_per_output_token": "tpot_s",
    "inter_token_latency": "itl_s",
    "normalized_time_per_output_token": "e2e_per_output_token_s",
}
_STATISTIC = re.compile(r"^(mean|median|min|max|p[0-9.]+)$")
_STAGE = re.compile(r"stage_(\d+)_")


def sniff(glance: Glance) -> str | None:
    """The layout, None if it is another tool's file."""
    if isinstance(glance.first, list):
        first = glance.first[0] if glance.first else None
        return "requests" if isinstance(first, dict) and first.keys() >= _REQUEST else None
    if not glance.keys >= {"load_summary", "successes", "failures"}:
        return None
    load, successes = glance.first["load_summary"], glance.first["successes"]
    if isinstance(successes, dict) and "queue_len" in successes:
        return "server metrics"
    return "stage" if isinstance(load, dict) and "requested_rate" in load else "summary"


def read(glances: Sequence[Glance]) -> Iterator[Measurement]:
    """One measurement for each stage; for the summary if there is no stage."""
    found: dict[str, list[Glance]] = {}
    for glance in glances:
        found.setdefault(sniff(glance) or "summary", []).append(glance)
    loads = sorted(found.get("stage", []), key=_stage_number) or found.get("summary", [])
    listed = found.get("requests", [])
    if listed and not loads:
        rows = [row for glance in listed for row in glance.objects()]
        yield _with_requests(Measurement(tool=NAME, layout="requests", files=_names(listed)), rows)
        return
    measurements = [_measurement(glance) for glance in loads]
    parts = _shares(measurements, listed)
    more = tuple(
        Note(fate="kept", field=glance.document.path.name, why=why)
        for layout, why in (
            ("summary", "mixes the loads of all stages"),
            ("server metrics", "what the server says of itself"),
        )
        for glance in found.get(layout, [])
        if glance not in loads
    )
    for one, rows in zip(measurements, parts, strict=True):
        files = (*one.files, *_names(listed)) if rows else one.files
        told = dataclasses.replace(one, files=files, notes=(*one.notes, *more))
        yield _with_requests(told, rows)


def _names(glances: Sequence[Glance]) -> tuple[str, ...]:
    return tuple(glance.document.path.name for glance in glances)


def _stage_number(glance: Glance) -> int:
    found = _STAGE.search(glance.document.path.name)
    return int(found.group(1)) if found else 0


def _measurement(glance: Glance) -> Measurement:
    fields = Fields(str(glance.document.path), glance.first)
    fields.report("benchmark_time_seconds", "duration_s")
    load, failures = fields.nested("load_summary"), fields.nested("failures")
    successes, goodput = fields.nested("successes"), fields.nested("goodput_metrics")
    point = _point(load) if load is not None else {}
    if failures is not None:
        failures.report("count", "failed_count")
    if successes is not None:
        _take_successes(successes)
    if goodput is not None:
        goodput.report("request_goodput", "goodput_requests_per_s")
        goodput.report("good_requests", "good_count")
    return Measurement(
        tool=NAME,
        layout=sniff(glance) or "summary",
        files=_names([glance]),
        operating_point=point,
        workload={"name": NAME},
        reported=fields.reported,
        notes=fields.notes(),
    )


def _point(load: Fields) -> dict[str, Json]:
    """Users of a closed loop, else the rate that was asked for."""
    load.report("achieved_rate", "sent_requests_per_s")
    _take_statistics(load, "schedule_delay", "schedule_delay_s")
    users, rate = load.count("concurrency"), load.number("requested_rate")
    if users is not None:
        return {"concurrency": users}
    return {} if rate is None else {"rate_per_s": rate}


def _take_successes(successes: Fields) -> None:
    count = successes.report("count", "completed_count")
    throughput, latency = successes.nested("throughput"), successes.nested("latency")
    for name, metric in (("prompt_tokens", "input_tokens_count"), ("output_tokens", "")):
        tokens = successes.nested(name)
        if tokens is not None:
            tokens.report("total", metric or "output_tokens_count")
    if not count:
        successes.note("refused", "latency", "no request succeeded")
        return
    if throughput is not None:
        for kind in ("input", "output", "total"):
            throughput.report(f"{kind}_tokens_per_sec", f"{kind}_tokens_per_s")
        throughput.report("requests_per_sec", "requests_per_s")
    if latency is not None:
        for name, metric in _LATENCIES.items():
            _take_statistics(latency, name, metric, zero_is_none=metric not in ("itl_s",))


def _take_statistics(fields: Fields, name: str, metric: str, *, zero_is_none: bool = False) -> None:
    block = fields.nested(name)
    for statistic in list(block) if block is not None else ():
        if block is None or not _STATISTIC.match(statistic):
            continue
        if zero_is_none and block.number(statistic) == 0.0:
            block.note("refused", statistic, "0 s stands for an answer without a token")
        else:
            label = "p50" if statistic == "median" else statistic
            block.report(statistic, metric, label, signed=metric == "schedule_delay_s")


Row = tuple[str, Any]


def _shares(measurements: Sequence[Measurement], listed: Sequence[Glance]) -> list[list[Row]]:
    """The requests of each load, by their order in time and the number of each."""
    nothing: list[list[Row]] = [[] for _ in measurements]
    rows = [row for glance in listed for row in glance.objects()]
    if len(measurements) == 1:
        return [rows]
    counts = [
        int(
            (stated(one.reported, "completed_count") or 0)
            + (stated(one.reported, "failed_count") or 0)
        )
        for one in measurements
    ]
    if not rows or sum(counts) != len(rows):
        return nothing
    rows.sort(key=lambda row: _number(Fields(*row), "start_time"))
    edges = np.cumsum([0, *counts])
    return [rows[first:last] for first, last in pairwise(edges)]


def _with_requests(one: Measurement, rows: Sequence[Row]) -> Measurement:
    if not rows:
        return one
    results = [_request(index, Fields(*row)) for index, row in enumerate(rows)]
    again: Callable[[], Iterator[RequestResult]] = partial(iter, results)
    window_s = min(each.sent_s for each in results), max(each.end_s for each in results)
    return dataclasses.replace(one, clock="monotonic", window_s=window_s, requests=again)


def _request(index: int, fields: Fields) -> RequestResult:
    start_s, end_s = _number(fields, "start_time"), _number(fields, "end_time")
    if end_s < start_s:
        raise fields.bad("end_time", end_s, "before start_time")
    info, error = fields.nested("info"), fields.nested("error")
    asked = info.nested("request_metrics") if info is not None else None
    answer = (info.nested("response_metrics") if info is not None else None) or info
    text = asked.nested("text") if asked is not None else None
    usage = answer.nested("server_usage") if answer is not None else None
    outputs, source = (answer.count("output_tokens") if answer is not None else None), None
    inputs = (text or info).count("input_tokens") if info is not None else None
    if usage is not None:
        told = usage.count("completion_tokens")
        outputs, source = (outputs, None) if told is None else (told, "usage")
        inputs = inputs if usage.count("prompt_tokens") is None else usage.count("prompt_tokens")
    times_s = answer.numbers("output_token_times") if answer is not None else None
    if not times_s and answer is not None:
        times_s = answer.numbers("chunk_times")
    chunk_s, tokens = np.unique(np.array(times_s or [], dtype=np.float64), return_counts=True)
    scheduled_s = fields.number("scheduled_time")
    return RequestResult(
        request=InferenceRequest(
            index=index,
            session_index=index,
            turn_index=0,
            messages=(),
            max_output_tokens=outputs or 1,
            ignore_eos=False,
        ),
        phase="measured",
        queued_s=start_s if scheduled_s is None else min(scheduled_s, start_s),
        sent_s=start_s,
        end_s=end_s,
        chunk_s=chunk_s,
        chunk_tokens=tokens.astype(np.float64),
        input_tokens=inputs or None,
        output_tokens=None if error is not None else outputs or None,
        tokens_source="usage" if source else None,
        error_class=(error.text("error_type") or "Reported") if error is not None else None,
        error_text=(error.text("error_msg") or "failed") if error is not None else None,
    )


def _number(fields: Fields, name: str) -> float:
    value = fields.number(name)
    if value is None:
        raise BadDocument(f"{fields.place}: {name} is missing, so the request has no place in time")
    return value
