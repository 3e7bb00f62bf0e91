"""SGLang's ``bench_serving`` (JSONL, milliseconds) and lines of ``llm-optimizer``, which wrap it.

Source: SGLang ``benchmark/serving.py`` 00f9ec4. No file tells an instant, and the lists of
``--output-details`` tell no start of a request: nothing can be put beside a power log, and no
request can be placed. Its duration includes a last call for ``/server_info``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wattbench.core.run import Json, ReportedFigure
from wattbench.interchange.results.fields import Fields
from wattbench.interchange.results.glance import Glance
from wattbench.interchange.results.measurement import Measurement
from wattbench.interchange.results.vllm import operating_point, take_counts

NAME = "sglang-bench"
_KEYS = {"duration", "completed", "output_throughput"}
_OWN = {"total_throughput", "mean_e2e_latency_ms", "total_output_tokens_retokenized"}
_STEADY = {"window_start", "window_end", "average_concurrency", "output_throughput"}
_OPTIMIZER = {"config", "results", "metadata"}
_STATISTIC = re.compile(r"^(mean|median|std|p[0-9.]+)_(e2e_latency|ttft|tpot|itl)_ms$")
_LATENCIES = {"ttft": "ttft_s", "tpot": "tpot_s", "itl": "itl_s", "e2e_latency": "e2e_s"}
_NATIVE = ("sglang", "sglang-native")
RETOKENIZED_TOLERANCE_RATIO = 0.05
"""Re-tokenised text may differ from the server's count by this much without a word."""


def sniff(glance: Glance) -> str | None:
    """The layout, None if it is another tool's file."""
    first = glance.first[0] if isinstance(glance.first, list) and glance.first else glance.first
    return _layout(first) if isinstance(first, dict) else None


def _layout(value: Mapping[str, Any]) -> str | None:
    keys = value.keys()
    if keys >= _OPTIMIZER and ("cmd" in keys or "constraints" in keys):
        return "llm-optimizer"
    if keys >= _STEADY:
        return "steady state"
    if not (keys >= _KEYS and _OWN & keys):
        return None
    return "details" if "ttfts" in keys else "totals"


def read(glances: Sequence[Glance]) -> Iterator[Measurement]:
    """One measurement for each line."""
    for glance in glances:
        for place, value in glance.objects():
            fields = Fields(place, value)
            layout = _layout(value) or "totals"
            yield _optimized(fields) if layout == "llm-optimizer" else _measured(fields, layout)


def _measured(fields: Fields, layout: str) -> Measurement:
    _take(fields)
    engine = fields.text("backend")
    point = operating_point(fields)
    return Measurement(
        tool=NAME,
        layout=layout,
        model=fields.text("model_id") or fields.text("model"),
        engine=engine,
        operating_point=point,
        workload={"name": fields.text("tag") or fields.text("dataset_name") or NAME},
        reported=fields.reported,
        notes=fields.notes(),
    )


def _optimized(fields: Fields) -> Measurement:
    """A line of llm-optimizer: a setting of the server, and what SGLang's client found there."""
    results, about = fields.nested("results"), fields.nested("metadata")
    config = fields.nested("config")
    point: dict[str, Json] = {}
    if results is None or "duration" not in results:
        fields.note("refused", "results", "no results: this setting did not run to its end")
    else:
        _take(results)
        point = operating_point(results)
    client = config.nested("client_args") if config is not None else None
    point = (operating_point(client) if client is not None else {}) | point
    server = config.raw("server_args") if config is not None else None
    if config is not None and isinstance(server, dict):
        config.note("taken", "server_args")
        point |= {key: value for key, value in server.items() if not isinstance(value, dict | list)}
    return Measurement(
        tool=NAME,
        layout="llm-optimizer",
        model=about.text("model_tag") if about is not None else None,
        engine=results.text("backend") if results is not None else None,
        hardware=about.text("gpu_type") if about is not None else None,
        device_count=about.count("gpu_count") if about is not None else None,
        operating_point=point,
        workload={"name": "llm-optimizer"},
        reported=fields.reported,
        notes=fields.notes(),
    )


def _take(fields: Fields) -> None:
    """Take what SGLang's client computed, and what follows from its lists."""
    fields.report("duration", "duration_s")
    take_counts(fields)
    fields.report("input_throughput", "input_tokens_per_s")
    fields.report("total_throughput", "total_tokens_per_s")
    for name in ("concurrency", "average_concurrency"):
        fields.report(name, "requests_in_flight_count", "mean")
    _check_tokens(fields)
    _take_latencies(fields)
    if "ttfts" not in fields:
        return
    fields.note("refused", "ttfts", "no start of a request is told, so none can be placed")
    fields.note("refused", "generated_texts", "texts are not stored")
    errors = fields.items("errors")
    if errors is not None:
        failed = float(sum(bool(error) for error in errors))
        figure = ReportedFigure(
            metric="failed_count", statistic="total", value=failed, field="errors"
        )
        fields.add(figure, "counted")


def _check_tokens(fields: Fields) -> None:
    """Without ``usage`` the length that was asked for stands as the count of the answer."""
    counted = fields.count("total_output_tokens")
    again = fields.count("total_output_tokens_retokenized")
    if not counted or not again:
        return
    off_ratio = again / counted - 1
    if abs(off_ratio) > RETOKENIZED_TOLERANCE_RATIO:
        why = (
            f"{off_ratio:+.0%} beside total_output_tokens, which may be the lengths asked for: "
            f"SGLang takes these where the server sends no usage"
        )
        fields.note("refused", "total_output_tokens_retokenized", why)


def _take_latencies(fields: Fields) -> None:
    empty = not fields.count("completed")
    rebuilt = bool(fields.number("accept_length")) and fields.text("backend") not in _NATIVE
    for name in list(fields):
        found = _STATISTIC.match(name)
        if found is None:
            continue
        statistic, latency = found.groups()
        if empty or (fields.number(name) == 0.0 and statistic != "std"):
            fields.note("refused", name, "0 ms of an empty sample")
        elif latency == "itl" and rebuilt:
            fields.note(
                "refused", name, "guessed tokens: gaps are rebuilt from re-tokenised chunks"
            )
        else:
            statistic = {"median": "p50", "std": "sd"}.get(statistic, statistic)
            fields.report(name, _LATENCIES[latency], statistic, scale_ratio=1e-3)
