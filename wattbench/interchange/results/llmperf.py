"""LLMPerf: a list of responses, or its flat summary; seconds, and one figure that is unusable.

Source: ray-project/llmperf f1d6bed. Its inter-token latency is a sum that includes the time to
the first token, and is refused. No file tells an instant: nothing can be put beside a power log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from wattbench.core.run import Json, ReportedFigure
from wattbench.interchange.results.document import BadDocument
from wattbench.interchange.results.fields import Fields
from wattbench.interchange.results.glance import Glance
from wattbench.interchange.results.measurement import Measurement, Note

NAME = "llmperf"
ITL = "inter_token_latency_s"
_RESPONSE = {"ttft_s", "end_to_end_latency_s", ITL, "error_code"}
_LATENCIES = {"ttft_s": "ttft_s", "end_to_end_latency_s": "e2e_s"}
_SUMMARY = re.compile(rf"^results_({'|'.join((*_LATENCIES, ITL))})_(quantiles_)?(\w+)$")
_STATISTICS = {"mean": "mean", "min": "min", "max": "max", "stddev": "sd"}
WHY = "a sum that includes the time to the first token, no gap between tokens"


def sniff(glance: Glance) -> str | None:
    """The layout, None if it is another tool's file."""
    if isinstance(glance.first, list):
        first = glance.first[0] if glance.first else None
        return "responses" if isinstance(first, dict) and first.keys() >= _RESPONSE else None
    if glance.keys >= _RESPONSE:
        return "responses"
    return "summary" if any(_SUMMARY.match(key) for key in glance.keys) else None


def read(glances: Sequence[Glance]) -> Iterator[Measurement]:
    """One measurement for each file."""
    for glance in glances:
        yield _summary(glance) if sniff(glance) == "summary" else _responses(glance)


def _summary(glance: Glance) -> Measurement:
    fields = Fields(str(glance.document.path), glance.first)
    for name in list(fields):
        found = _SUMMARY.match(name)
        if found is None:
            continue
        latency, quantile, word = found.groups()
        statistic = word if quantile else _STATISTICS.get(word)
        if latency == ITL:
            fields.note("refused", name, WHY)
        elif fields.number(name) == 0.0 and statistic != "sd":
            fields.note("refused", name, "0 s of an empty sample")
        elif statistic is not None:
            fields.report(name, _LATENCIES[latency], _percentile(statistic))
    fields.report("results_num_completed_requests", "completed_count")
    fields.report("results_number_errors", "failed_count")
    fields.report("results_mean_output_throughput_token_per_s", "output_tokens_per_s")
    per_minute = "results_num_completed_requests_per_min"
    fields.report(per_minute, "requests_per_s", scale_ratio=1 / 60)
    users = fields.count("num_concurrent_requests")
    point: dict[str, Json] = {} if users is None else {"concurrency": users}
    return Measurement(
        tool=NAME,
        layout="summary",
        model=fields.text("model"),
        operating_point=point,
        workload={"name": NAME},
        reported=fields.reported,
        notes=fields.notes(),
    )


def _percentile(statistic: str) -> str:
    """``p05`` of LLMPerf is ``p5`` here."""
    return re.sub(r"^p0(?=\d)", "p", statistic)


def _responses(glance: Glance) -> Measurement:
    """Failed responses, which stand with times of 0, are counted and left out."""
    rows = [Fields(place, value) for place, value in glance.objects()]
    good = [row for row in rows if row.raw("error_code") is None]
    figures = [_figure("completed_count", len(good), "error_code")]
    figures.append(_figure("failed_count", len(rows) - len(good), "error_code"))
    for name, metric in (
        ("number_input_tokens", "input_tokens_count"),
        ("number_output_tokens", "output_tokens_count"),
    ):
        counts = [row.count(name) for row in good]
        told = [count for count in counts if count is not None]
        if good and len(told) == len(counts):
            figures.append(_figure(metric, sum(told), name))
    for name, metric in _LATENCIES.items():
        values = np.array([_number(row, name) for row in good])
        if len(values):
            figures.append(_figure(metric, values.mean(), name, "mean"))
            figures.append(_figure(metric, np.percentile(values, 50), name, "p50"))
    why = f"of the {len(good)} responses without an error"
    notes = [Note(fate="converted", field=name, why=why) for name in _LATENCIES]
    return Measurement(
        tool=NAME,
        layout="responses",
        workload={"name": NAME},
        reported=tuple(figures),
        notes=(*notes, Note(fate="refused", field=ITL, why=WHY)),
    )


def _figure(metric: str, value: float, field: str, statistic: str = "total") -> ReportedFigure:
    return ReportedFigure(metric=metric, statistic=statistic, value=float(value), field=field)


def _number(row: Fields, name: str) -> float:
    value = row.number(name)
    if value is None:
        raise BadDocument(f"{row.place}: {name} is missing from a response without an error")
    return value
