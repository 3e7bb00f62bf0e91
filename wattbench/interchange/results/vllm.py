"""``vllm bench serve --save-result``: aggregates in ms, lists in seconds, with or without detail.

Source: vLLM ``benchmarks/serve.py``. Old files lack ``failed``; ``--append-result`` writes one
object per line; ``--save-detailed`` adds lists per request. In the lists a failed request stands
as TTFT 0.0 and length 0 with a text in ``errors``. ``start_times`` are of ``perf_counter``, which
on Linux is the monotonic clock of the host: they meet a meter that stamped on the same host only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from wattbench.core.load import RequestResult
from wattbench.core.run import Json, ReportedFigure
from wattbench.interchange.results.document import BadDocument
from wattbench.interchange.results.fields import Fields
from wattbench.interchange.results.glance import Glance
from wattbench.interchange.results.measurement import Measurement
from wattbench.interchange.results.rebuilt import MAX_ANSWER_TOKENS, asked

NAME = "vllm-bench"
_KEYS = {"duration", "completed", "total_output_tokens", "request_throughput"}
_OWN = {"total_token_throughput", "backend", "endpoint_type", "max_concurrency"}
_LATENCIES = {"ttft": "ttft_s", "tpot": "tpot_s", "itl": "itl_s", "e2el": "e2e_s"}
_STATISTIC = re.compile(r"^(mean|median|std|p[0-9.]+)_(ttft|tpot|itl|e2el)_ms$")
_LISTS = ("input_lens", "output_lens", "ttfts", "itls")


def sniff(glance: Glance) -> str | None:
    """The layout, None if it is another tool's file."""
    keys = glance.keys
    if not (keys >= _KEYS and _OWN & keys) or "total_throughput" in keys:
        return None
    if "benchmark_start_time_unix" in keys:
        return None  # InferenceX writes the same keys and adds its own
    return _layout(keys)


def _layout(keys: Iterable[str]) -> str:
    names = set(keys)
    layout = "detailed" if names >= {"ttfts", "itls"} else "aggregate"
    return layout if "failed" in names else f"old {layout}"


def read(glances: Sequence[Glance]) -> Iterator[Measurement]:
    """One measurement for each object."""
    for glance in glances:
        for place, value in glance.objects():
            yield _measurement(Fields(place, value))


def _measurement(fields: Fields) -> Measurement:
    duration_s = fields.report("duration", "duration_s")
    take_counts(fields)
    take_latencies(fields)
    layout, results = _layout(fields), detailed(fields)
    return Measurement(
        tool=NAME,
        layout=layout,
        model=fields.text("model_id"),
        engine=fields.text("backend") or fields.text("endpoint_type"),
        operating_point=operating_point(fields),
        workload={"name": fields.text("label") or NAME},
        clock="monotonic" if results else None,
        window_s=_window_s(results, duration_s),
        requests=(lambda: iter(results)) if results else None,
        reported=fields.reported,
        notes=fields.notes(),
    )


def operating_point(fields: Fields) -> dict[str, Json]:
    """Users of a closed loop, and the rate of arrivals where it is finite."""
    point: dict[str, Json] = {}
    users = fields.count("max_concurrency")
    if users is not None:
        point["concurrency"] = users
    rate = fields.raw("request_rate")
    if isinstance(rate, int | float) and not isinstance(rate, bool):
        point["rate_per_s"] = float(rate)
    return point


def take_counts(fields: Fields) -> None:
    """Totals and rates, which are of the requests that succeeded."""
    fields.report("completed", "completed_count")
    fields.report("failed", "failed_count")
    fields.report("total_input_tokens", "input_tokens_count")
    fields.report("total_output_tokens", "output_tokens_count")
    fields.report("output_throughput", "output_tokens_per_s")
    fields.report("request_throughput", "requests_per_s")
    fields.report("request_goodput", "goodput_requests_per_s")
    if "max_output_tokens_per_s" in fields:
        fields.note("refused", "max_output_tokens_per_s", "counts chunks, and a chunk is no token")


def take_latencies(fields: Fields) -> None:
    """Statistics of latencies; of an empty sample vLLM writes zeros."""
    empty = not fields.count("completed")
    for name in list(fields):
        found = _STATISTIC.match(name)
        if found is None:
            continue
        statistic, latency = found.groups()
        if empty or (fields.number(name) == 0.0 and statistic != "std"):
            fields.note("refused", name, "0 ms of an empty sample")
            continue
        statistic = {"median": "p50", "std": "sd"}.get(statistic, statistic)
        fields.report(name, _LATENCIES[latency], statistic, scale_ratio=1e-3)
    _take_e2e(fields)


def _take_e2e(fields: Fields) -> None:
    """By default vLLM leaves the block of E2E out, and writes the latency of each success."""
    values_s = [value for value in fields.numbers("latencies") or () if value > 0]
    if not values_s:
        return
    found = {"mean": np.mean(values_s), "p50": np.median(values_s)}
    found["p99"] = np.quantile(values_s, 0.99)
    for statistic, value_s in found.items():
        figure = ReportedFigure(
            metric="e2e_s", statistic=statistic, value=float(value_s), field="latencies"
        )
        fields.add(figure, f"{statistic} of the list")


def detailed(fields: Fields) -> list[RequestResult]:
    """Each request of the lists; none where the file does not tell when they started."""
    if "ttfts" not in fields:
        return []
    if "start_times" not in fields:
        fields.note("refused", "ttfts", "no start of a request is told, so none can be placed")
        return []
    inputs, outputs, ttfts = (fields.numbers(name) or [] for name in _LISTS[:3])
    gaps = fields.items("itls") or []
    errors = fields.items("errors") or [""] * len(ttfts)
    starts = fields.numbers("start_times") or []
    lengths = {len(inputs), len(outputs), len(ttfts), len(gaps), len(errors), len(starts)}
    if len(lengths) != 1:
        raise BadDocument(
            f"{fields.place}: the lists per request are of unlike lengths {sorted(lengths)}"
        )
    fields.note("taken", "itls")
    fields.note("refused", "generated_texts", "texts are not stored")
    rows = zip(starts, inputs, outputs, ttfts, strict=True)
    return [
        _request(fields, index, row, gaps[index], errors[index]) for index, row in enumerate(rows)
    ]


def _request(
    fields: Fields,
    index: int,
    row: tuple[float, float, float, float],
    gaps: object,
    error: object,
) -> RequestResult:
    start_s, inputs, outputs, ttft_s = row
    failed = bool(error) or not outputs
    if min(inputs, outputs, ttft_s) < 0 or outputs > MAX_ANSWER_TOKENS:
        raise fields.bad(f"input_lens, output_lens, ttfts [{index}]", row[1:], "not possible")
    if not isinstance(gaps, list) or not all(
        isinstance(gap, int | float) and 0 <= gap < 1e6 for gap in gaps
    ):
        raise fields.bad(f"itls[{index}]", gaps, "not a list of gaps in seconds")
    chunk_s = np.empty(0) if failed else start_s + ttft_s + np.cumsum([0.0, *gaps])
    return RequestResult(
        request=asked(index, int(outputs)),
        phase="measured",
        queued_s=start_s,
        sent_s=start_s,
        end_s=float(chunk_s[-1]) if len(chunk_s) else start_s,
        chunk_s=chunk_s,
        chunk_tokens=np.full(len(chunk_s), np.nan),
        input_tokens=int(inputs) or None,
        output_tokens=None if failed else int(outputs),
        tokens_source=None if failed else "usage",
        error_class="Reported" if failed else None,
        error_text=(str(error) or "no token came") if failed else None,
    )


def _window_s(
    results: Sequence[RequestResult], duration_s: float | None
) -> tuple[float, float] | None:
    """From the first request sent, for as long as the file says."""
    if not results:
        return None
    start_s = min(result.sent_s for result in results)
    end_s = max(result.end_s for result in results)
    return start_s, end_s if duration_s is None else start_s + duration_s
