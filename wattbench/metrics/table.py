"""The declared metrics: name, unit, formula, direction, source. Nothing is computed elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wattbench.core.energy import FloatArray
from wattbench.core.load import RequestResult
from wattbench.core.run import RawRun
from wattbench.core.slo import Objective
from wattbench.metrics.window import Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """One ratio over a window.

    Attributes:
        name: Name in tables and JSON, unit last.
        unit: The unit for a reader.
        better: Which direction is better.
        formula: The definition.
        source: Who defines it so.
        energy_power: +1 if joules stand above the line, −1 if below, 0 if not at all.
        value: Computes it from sums over a window (None if something it needs is unknown or
            zero); for a metric of single requests there is no such function.
    """

    name: str
    unit: str
    better: Literal["higher", "lower", "neither"]
    formula: str
    source: str
    energy_power: Literal[-1, 0, 1]
    value: Callable[[Totals], float | None] | None = None

    def of(self, totals: Totals) -> float | None:
        """The ratio over a window; None if something it needs is unknown or zero."""
        return self.value(totals) if self.value is not None else None


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above and below else None


def _all_tokens(totals: Totals) -> float | None:
    return None if totals.input_tokens is None else totals.input_tokens + totals.output_tokens


_OWN = "wattbench: joules of the window over what the window produced"

RATIOS = (
    MetricSpec(
        name="output_tokens_per_s",
        unit="tokens/s",
        better="higher",
        formula="output tokens that arrived in the window / its duration",
        source="vLLM bench serve: output_throughput, without ramp and drain",
        energy_power=0,
        value=lambda t: _ratio(t.output_tokens, t.duration_s),
    ),
    MetricSpec(
        name="mean_power_watts",
        unit="W",
        better="lower",
        formula="energy of the window / its duration",
        source="InferenceX: avg_total_gpu_power_w",
        energy_power=1,
        value=lambda t: _ratio(t.energy_joules, t.metered_s),
    ),
    MetricSpec(
        name="energy_per_output_token_joules",
        unit="J/token",
        better="lower",
        formula="energy of the window / output tokens that arrived in it",
        source="InferenceX: joules_per_output_token, without ramp and drain",
        energy_power=1,
        value=lambda t: _ratio(t.energy_joules, t.output_tokens),
    ),
    MetricSpec(
        name="energy_per_input_token_joules",
        unit="J/token",
        better="lower",
        formula="energy of the window / prompt tokens whose first answer token arrived in it",
        source="InferenceX: joules_per_input_token, without ramp and drain",
        energy_power=1,
        value=lambda t: _ratio(t.energy_joules, t.input_tokens),
    ),
    MetricSpec(
        name="energy_per_total_token_joules",
        unit="J/token",
        better="lower",
        formula="energy of the window / (its prompt tokens + its output tokens)",
        source="InferenceX: joules_per_total_token, without ramp and drain",
        energy_power=1,
        value=lambda t: _ratio(t.energy_joules, _all_tokens(t)),
    ),
    MetricSpec(
        name="energy_per_request_joules",
        unit="J",
        better="lower",
        formula="energy attributed to requests / successful requests, each by its share inside",
        source=_OWN + "; failed requests' energy is charged",
        energy_power=1,
        value=lambda t: _ratio(t.request_joules, t.request_count),
    ),
    MetricSpec(
        name="goodput_requests_per_s",
        unit="requests/s",
        better="higher",
        formula="requests that met every limit of the service level / duration, each by its share",
        source="DistServe, OSDI'24: goodput; vLLM bench serve: request_goodput",
        energy_power=0,
        value=lambda t: _ratio(t.good_count, t.duration_s),
    ),
    MetricSpec(
        name="energy_per_good_request_joules",
        unit="J",
        better="lower",
        formula="energy of the window / requests that met every limit of the service level",
        source=_OWN + "; requests that came too late are charged to those that did not",
        energy_power=1,
        value=lambda t: _ratio(t.energy_joules, t.good_count),
    ),
    MetricSpec(
        name="tokens_per_joule",
        unit="tokens/J",
        better="higher",
        formula="output tokens that arrived in the window / its energy",
        source="arXiv 2605.11733: 1 / e_tok as measured",
        energy_power=-1,
        value=lambda t: _ratio(t.output_tokens, t.energy_joules),
    ),
)


INTERACTIVITY = MetricSpec(
    name="interactivity_tokens_per_s_per_user",
    unit="tokens/s/user",
    better="higher",
    formula="median over requests of 1 / tpot_s",
    source="InferenceX: median_intvty",
    energy_power=0,
)
INTERACTIVITY_PER_WATT = MetricSpec(
    name="interactivity_per_watt",
    unit="tokens/s/user/W",
    better="higher",
    formula="interactivity / mean power of all charged devices",
    source="tokenomics.info/cerebras: interactivity per watt, by measured power",
    energy_power=-1,
)
METRICS = (*RATIOS, INTERACTIVITY, INTERACTIVITY_PER_WATT)

REASONS = {
    "too_few_samples": "The 95 % order-statistic interval does not lie inside the sample.",
    "gaps_not_kept": "The tool keeps when the first and the last token came, and no gap between.",
    "too_few_tokens_for_interval": "A part of the only run gave no token, so scatter is unknown.",
    "no_interval_over_whole_run": "Whole-run ratios are given for comparison, without interval.",
    "reported_without_interval": "Another tool reports the value, and no file tells its scatter.",
    "stated_beside_a_meter": "A file states it, and the joules here are a meter's: its own are no "
    "measured ones, and it does not tell the counts that these would be divided by.",
    "count_not_told": "The files do not tell the tokens or requests that this is divided by.",
    "not_a_measured_board": "An export's format takes the measured energy of boards, and no other.",
    "no_slo": "No service level was given; add slo to the workload, or --slo.",
    "nothing_good": "No request met the service level.",
    "nothing_in_window": "Nothing to divide by arrived in the window.",
    "token_count_missing": "The engine did not count the tokens that this needs.",
    "energy_unknown": "The energy of this window is unknown, though another window's is known.",
    "nameplate_has_no_idle": "A nameplate bounds power; it has no idle that could be subtracted.",
    "no_idle_baseline": "Idle was not measured; idle_s of a workload, or wrap --idle-s, does it.",
    "too_few_windows": "The window has too few half seconds to tell prefill from decode.",
    "collinear": "Prompts and answers rise and fall together, and are not told apart.",
    "no_deep_idle": "The workload has no deep_idle_s, or the meter cannot run without the engine.",
    "idle_not_stable": "Power moved while the machine was meant to idle; there is no net energy.",
    "no_quality_task": "The workload does not check answers.",
}
"""Reason codes of missing values and intervals; those of missing energy stand with the checks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySpec:
    """A latency [s], lower is better: one value or several per successful measured request."""

    name: str
    formula: str
    source: str
    values: Callable[[RequestResult], FloatArray]


def _tpot_s(result: RequestResult) -> FloatArray:
    """After the first chunk: a first chunk may bundle tokens, and none of them took a gap."""
    rest = float(result.emitted_tokens[1:].sum())
    return np.array([(result.chunk_s[-1] - result.chunk_s[0]) / rest] if rest else [])


LATENCIES = (
    LatencySpec(
        name="ttft_s",
        formula="first chunk with an answer − when the load wanted to send",
        source="OpenTelemetry gen_ai.server.time_to_first_token, slot waiting included",
        values=lambda r: np.array([r.chunk_s[0] - r.queued_s]),
    ),
    LatencySpec(
        name="tpot_s",
        formula="(last chunk − first chunk) / tokens after the first chunk",
        source="OpenTelemetry gen_ai.server.time_per_output_token",
        values=_tpot_s,
    ),
    LatencySpec(
        name="itl_s",
        formula="each gap between two chunks, all requests together",
        source="vLLM bench serve: itl",
        values=lambda r: np.diff(r.chunk_s),
    ),
    LatencySpec(
        name="e2e_s",
        formula="last chunk − when the load wanted to send",
        source="vLLM bench serve: e2el, slot waiting included",
        values=lambda r: np.array([r.chunk_s[-1] - r.queued_s]),
    ),
)


def keeps_gaps(raw: RawRun) -> bool:
    """Whether the gaps between chunks were measured; some tools keep only the first and last."""
    return raw.record.backend.get("gaps") != "spread"


def latencies_s(name: str, raw: RawRun, requests: Sequence[RequestResult]) -> FloatArray:
    """Values of a latency over requests of a run [s], shape (n,); none of gaps not measured.

    Args:
        name: Which latency.
        raw: The run.
        requests: Those of its requests that count.
    """
    if name == "itl_s" and not keeps_gaps(raw):
        return np.empty(0)
    spec = next(spec for spec in LATENCIES if spec.name == name)
    return np.concatenate([np.empty(0), *(spec.values(request) for request in requests)])


def meets(result: RequestResult, objectives: Sequence[Objective]) -> bool:
    """Whether a request succeeded and every latency of its own lies below its limit."""
    if not result.succeeded or not len(result.chunk_s):
        return False
    values = {spec.name: spec.values(result) for spec in LATENCIES}
    return all((values[o.latency] < o.limit_s).all() for o in objectives)


QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
