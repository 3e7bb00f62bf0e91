"""GuideLLM's ``benchmarks.json``: version 2 (from 0.4), and version 1 of the releases before.

A file holds several benchmarks, and each is a measurement. Times are Unix seconds. TPOT is
``inter_token_latency_ms``; ``time_per_output_token_ms`` includes the first token in version 2, and
changed its meaning between releases of version 1. Statistics of an empty sample are written as 0.
Where the server gave no ``usage``, GuideLLM counts chunks as tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wattbench.core.run import Json, ReportedFigure
from wattbench.interchange.results import guidellm_requests
from wattbench.interchange.results.document import BadDocument
from wattbench.interchange.results.fields import Fields
from wattbench.interchange.results.glance import Glance
from wattbench.interchange.results.measurement import Measurement

NAME = "guidellm"
KNOWN_VERSION = 2
_LATENCIES = {
    "time_to_first_token_ms": ("ttft_s", 1e-3, ""),
    "inter_token_latency_ms": ("tpot_s", 1e-3, "times 0.001; each request weighs by its tokens"),
    "request_latency": ("e2e_s", 1.0, ""),
    "time_per_output_token_ms": (
        "e2e_per_output_token_s",
        1e-3,
        "times 0.001; the first token is included, so this is no TPOT",
    ),
}
_STATISTICS = {"mean": "mean", "std_dev": "sd", "min": "min", "max": "max"}
_PERCENTILE = re.compile(r"^p(\d\d)(\d?)$")
"""``p05`` is p5, ``p001`` p0.1 and ``p999`` p99.9."""
_PER_TOKEN = {"inter_token_latency_ms", "time_per_output_token_ms", "output_tokens_per_second"}
_CHUNKS = "without usage GuideLLM counts chunks, and a chunk is no token"


def sniff(glance: Glance) -> str | None:
    """The layout, None if it is another tool's file."""
    if not isinstance(glance.first, dict) or "benchmarks" not in glance.keys:
        return None
    benchmarks, metadata = glance.first["benchmarks"], glance.first.get("metadata")
    ours = isinstance(metadata, dict) and "guidellm_version" in metadata
    first = benchmarks[0] if isinstance(benchmarks, list) and benchmarks else {}
    if isinstance(first, dict) and "metrics" in first:
        ours = ours or {"run_stats", "scheduler_metrics"} & first.keys() != set()
    return f"v{_version(glance.first)}" if ours else None


def _version(document: Mapping[str, Any]) -> object:
    """Of the file; the oldest do not tell it."""
    metadata = document.get("metadata")
    return metadata.get("version", 1) if isinstance(metadata, dict) else 1


def read(glances: Sequence[Glance]) -> Iterator[Measurement]:
    """One measurement for each benchmark."""
    for glance in glances:
        for place, value in glance.objects():
            document = Fields(place, value)
            version = _version(value)
            if version not in (1, KNOWN_VERSION):
                raise BadDocument(f"{place}: metadata.version is {version!r}, not 1 or 2")
            metadata = document.raw("metadata")
            told = metadata.get("guidellm_version") if isinstance(metadata, dict) else None
            for index, one in enumerate(document.items("benchmarks") or []):
                fields = Fields(f"{place}, benchmark {index}", one)
                found = _Benchmark(fields, version == KNOWN_VERSION)
                yield found.measurement(told if isinstance(told, str) else None)


class _Benchmark:
    """One benchmark of a file."""

    def __init__(self, fields: Fields, is_new: bool) -> None:
        self.fields, self.is_new = fields, is_new
        metrics = fields.nested("metrics")
        if metrics is None:
            raise BadDocument(f"{fields.place}: has no metrics")
        self.metrics = metrics
        self.strategy = self._strategy()
        totals = (metrics if is_new else fields).nested("request_totals")
        self.counts = {
            state: totals.count(state) if totals else None for state in guidellm_requests.STATES
        }
        self.window_s = self._window_s()
        self.requests = guidellm_requests.Requests(
            fields.place,
            fields.raw("requests"),
            window_s=self.window_s,
            open_loop=self.strategy.get("type_") in ("constant", "poisson", "async", "replay"),
            streamed=self._backend().get("stream") is not False,
        )
        self.own: list[ReportedFigure] = []

    def measurement(self, tool_version: str | None) -> Measurement:
        """What it says."""
        sampled = self._sampled()
        chunks = self.requests.counts_chunks
        self._take_counts(chunks)
        self._take_latencies(chunks)
        requests = None
        if not sampled and self.requests.count:
            self.requests.check()
            requests = self.requests.results
            self._note_requests(chunks)
        self._take_failed()
        layout = "v2" if self.is_new else "v1"
        return Measurement(
            tool=NAME,
            tool_version=tool_version,
            layout=f"{layout} sampled" if sampled else layout,
            model=self._model(),
            operating_point=self._operating_point(),
            clock="unix" if self.window_s else None,
            window_s=self.window_s,
            requests=requests,
            gaps_spread=requests is not None,
            reported=(*self.fields.reported, *self.own),
            notes=self.fields.notes(),
        )

    def _window_s(self) -> tuple[float, float] | None:
        scheduler = self.fields.nested("scheduler_metrics") if self.is_new else None
        if scheduler is not None:
            start_s = scheduler.number("measure_start_time")
            end_s = scheduler.number("measure_end_time")
        else:
            start_s, end_s = (self.fields.number(name) for name in ("start_time", "end_time"))
        # Version 1 writes −1 where it knows nothing.
        if start_s is None or end_s is None or not 0 < start_s < end_s:
            return None
        return start_s, end_s

    def _strategy(self) -> Mapping[str, Any]:
        for place in ("config", "args", "scheduler"):
            told = self.fields.raw(place)
            strategy = told.get("strategy") if isinstance(told, dict) else None
            if isinstance(strategy, dict):
                return strategy
        return {}

    def _operating_point(self) -> dict[str, Json]:
        kind, told = self.strategy.get("type_"), self.strategy
        users = told.get("streams") or told.get("max_concurrency")
        if kind == "synchronous":
            return {"concurrency": 1}
        if kind == "concurrent" and isinstance(users, int):
            return {"concurrency": users}
        rate = told.get("rate")
        if isinstance(rate, int | float) and not isinstance(rate, bool):
            return {"rate_per_s": float(rate)}
        return {}

    def _backend(self) -> Mapping[str, Any]:
        """What was measured, as the file tells it in its several versions."""
        for place in ("config", "benchmarker"):
            told = self.fields.raw(place)
            backend = told.get("backend") if isinstance(told, dict) else None
            if isinstance(backend, dict):
                return backend
        worker = self.fields.raw("worker")
        return worker if isinstance(worker, dict) else {}

    def _model(self) -> str | None:
        model = self._backend().get("model") or self._backend().get("backend_model")
        return model if isinstance(model, str) else None

    def _sampled(self) -> bool:
        """Whether the lists hold only some of the requests: no total follows from them then."""
        counted, listed = self.counts["successful"], self.requests.successful_count
        config = self.fields.raw("config")
        told = config.get("sample_size") if isinstance(config, dict) else None
        if counted is None or listed >= counted:
            return False
        size = f" (sample_size {told})" if told is not None else ""
        why = f"a sample of {listed} of {counted}{size}: totals are those of metrics"
        self.fields.note("refused", "requests", why)
        return True

    def _take_counts(self, chunks: bool) -> None:
        totals = (self.metrics if self.is_new else self.fields).nested("request_totals")
        if totals is not None:
            totals.report("successful", "completed_count")
        if self.window_s is not None:
            duration_s = self.window_s[1] - self.window_s[0]
            self._own("duration_s", duration_s, "end − start of the measured phase")
        self._sum("prompt_token_count", "input_tokens_count", "total_sum")
        self._sum("requests_per_second", "requests_per_s", "mean")
        for name, metric, statistic in (
            ("output_token_count", "output_tokens_count", "total_sum"),
            ("output_tokens_per_second", "output_tokens_per_s", "mean"),
        ):
            if chunks:
                self.metrics.note("refused", name, _CHUNKS)
            else:
                self._sum(name, metric, statistic)
        self.metrics.note("refused", "tokens_per_second", "counts prompt tokens as well")

    def _sum(self, name: str, metric: str, statistic: str) -> None:
        sample = self._sample(name)
        if sample is not None:
            sample.report(statistic, metric)

    def _take_latencies(self, chunks: bool) -> None:
        for name, (metric, scale_ratio, why) in _LATENCIES.items():
            if chunks and name in _PER_TOKEN:
                self.metrics.note("refused", name, _CHUNKS)
                continue
            if name == "time_per_output_token_ms" and not self.is_new:
                self.metrics.note("refused", name, "its meaning changed within version 1")
                continue
            if not self.requests.streamed and name != "request_latency":
                self.metrics.note("refused", name, "answers were not streamed")
                continue
            sample = self._sample(name)
            if sample is None:
                continue
            for field, statistic in _STATISTICS.items():
                sample.report(field, metric, statistic, scale_ratio=scale_ratio, why=why)
            percentiles = sample.nested("percentiles")
            for field in () if percentiles is None else percentiles:
                found = _PERCENTILE.match(field)
                if percentiles is not None and found:
                    statistic = f"p{float(f'{found[1]}.{found[2] or 0}'):g}"
                    percentiles.report(field, metric, statistic, scale_ratio=scale_ratio, why=why)

    def _sample(self, name: str) -> Fields | None:
        """The statistics of the requests that succeeded; None of an empty sample."""
        states = self.metrics.nested(name)
        sample = states.nested("successful") if states else None
        if sample is None:
            return None
        if not sample.count("count"):
            self.metrics.note("refused", name, "0.0 of an empty sample")
            return None
        return sample

    def _take_failed(self) -> None:
        known = [self.counts[state] for state in ("errored", "incomplete")]
        if None not in known:
            failed = sum(count for count in known if count is not None)
            self._own("failed_count", failed, "request_totals.errored + incomplete")

    def _own(self, metric: str, value: float, field: str) -> None:
        """A figure of several fields."""
        self.own.append(ReportedFigure(metric=metric, statistic="total", value=value, field=field))

    def _note_requests(self, chunks: bool) -> None:
        why = "only first and last token are kept: tokens are spread evenly, a mean gap is no ITL"
        self.fields.note("converted", "requests", why)
        if chunks:
            self.fields.note("refused", "requests.output_tokens", _CHUNKS)
