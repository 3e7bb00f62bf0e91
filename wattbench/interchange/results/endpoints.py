"""``result_summary.json`` of mlcommons/endpoints: only complete runs, nanoseconds, no instant.

Source: mlcommons/endpoints ea33275. ``test_started_at`` is always 0 and events are on the
monotonic clock, so a summary cannot be put beside a power log. Where a window of LoadGen is given,
``qps`` and ``tps`` are of that window and not of the whole run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from wattbench.core.run import Json
from wattbench.interchange.results.document import BadDocument
from wattbench.interchange.results.fields import Fields
from wattbench.interchange.results.glance import Glance
from wattbench.interchange.results.measurement import Measurement

NAME = "mlperf-endpoints"
_KEYS = {"n_samples_issued", "n_samples_completed", "duration_ns", "complete"}
_LATENCIES = {"ttft": "ttft_s", "tpot": "tpot_s", "latency": "e2e_s"}
_STATISTICS = {"avg": "mean", "median": "p50", "std_dev": "sd", "min": "min", "max": "max"}


def sniff(glance: Glance) -> str | None:
    """The layout, None if it is another tool's file."""
    return "result summary" if glance.keys >= _KEYS else None


def read(glances: Sequence[Glance]) -> Iterator[Measurement]:
    """One measurement for each file."""
    for glance in glances:
        for place, value in glance.objects():
            yield _measurement(Fields(place, value))


def _measurement(fields: Fields) -> Measurement:
    if fields.raw("complete") is not True:
        state = fields.raw("state")
        raise BadDocument(
            f"{fields.place}: complete is not true (state {state!r}), so its figures are of a part "
            f"of the load; give a run that ended by itself"
        )
    fields.report("duration_ns", "duration_s", scale_ratio=1e-9)
    fields.report("n_samples_succeeded", "completed_count")
    fields.report("n_samples_completed", "completed_count")
    fields.report("n_samples_failed", "failed_count")
    if "test_started_at" in fields:
        fields.note("refused", "test_started_at", "always 0")
    for name, metric in (
        ("input_sequence_lengths", "input_tokens_count"),
        ("output_sequence_lengths", "output_tokens_count"),
    ):
        lengths = fields.nested(name)
        if lengths is not None and lengths.number("total"):
            lengths.report("total", metric)
    _take_rates(fields)
    for name, metric in _LATENCIES.items():
        block = fields.nested(name)
        if block is not None:
            _take_block(block, metric)
    return Measurement(
        tool=NAME,
        layout="result summary",
        tool_version=fields.text("version"),
        operating_point=_point(fields),
        workload={"name": NAME},
        reported=fields.reported,
        notes=fields.notes(),
    )


def _take_rates(fields: Fields) -> None:
    window_ns = fields.number("legacy_loadgen_window_duration_ns")
    prefix, why = "", ""
    if window_ns:
        fields.report("legacy_loadgen_window_duration_ns", "loadgen_window_s", scale_ratio=1e-9)
        prefix, why = "loadgen_window_", "of LoadGen's window, not of the whole run"
    for name, metric in (("qps", "requests_per_s"), ("tps", "output_tokens_per_s")):
        if fields.number(name) == 0.0:
            fields.note("refused", name, "0 stands for what was not measured")
        else:
            fields.report(name, prefix + metric, why=why)


def _take_block(block: Fields, metric: str) -> None:
    if not block.number("max"):
        for name in block:
            block.note("refused", name, "0 ns of an empty sample")
        return
    for name, statistic in _STATISTICS.items():
        block.report(name, metric, statistic, scale_ratio=1e-9)
    percentiles = block.nested("percentiles")
    for name in list(percentiles) if percentiles is not None else ():
        try:
            statistic = f"p{float(name):.6g}"
        except ValueError:
            continue
        if percentiles is not None:
            percentiles.report(name, metric, statistic, scale_ratio=1e-9)


def _point(fields: Fields) -> dict[str, Json]:
    config = fields.nested("run_config")
    pattern = config.nested("load_pattern") if config is not None else None
    if pattern is None:
        return {}
    point: dict[str, Json] = {}
    users, rate = pattern.count("target_concurrency"), pattern.number("target_qps")
    if users:
        point["concurrency"] = users
    if rate and not users:
        point["rate_per_s"] = rate
    return point
