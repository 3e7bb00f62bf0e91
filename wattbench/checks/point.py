"""Reasons to doubt a result: named checks over the raw facts of an operating point.

Each check is a function that yields findings. An ``error`` makes the verdict of its scope
invalid, a ``warning`` doubtful, an ``info`` leaves it. The performance verdict and the energy
verdict are separate: a dead meter spoils joules, not latencies. Verdicts are never stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from wattbench.checks.calibration import calibration
from wattbench.checks.devices import (
    contention,
    elsewhere,
    foreign,
    left_out,
    neighbours,
    unproven,
)
from wattbench.checks.finding import finding, of_another_tool
from wattbench.checks.imported import (
    enveloped,
    no_interval,
    program_failed,
    reported,
    reported_energy,
    shared_envelope,
)
from wattbench.checks.meters import check_meters
from wattbench.checks.power import alias, ignores_load, replayed, two_paths
from wattbench.checks.steadiness import steadiness
from wattbench.core.energy import EnergyMeasurement, Unmeasured
from wattbench.core.redaction import without_credentials
from wattbench.core.result import Finding, Scope, Severity, Verdict
from wattbench.core.run import RawRun
from wattbench.metrics import (
    QUANTILES,
    PointFacts,
    power_limit_watts,
)
from wattbench.stats import needed_for_quantile

MIN_WINDOW_S = 10.0
"""Shortest window whose energy is taken at face value [s]."""
EDGE_FRACTION = 0.005
"""Error at the window's edges that is tolerated, relative to its energy."""
FAILED_FRACTION = 0.05
"""Share of failed requests from which latency means nothing: the failures are the slow ones."""
OVERLOAD_FRACTION = 0.05
"""Share of requests without a slot at the end from which arrivals outran the engine."""
PROMPT_FRACTION = 0.25
"""Prompts that are so much longer or shorter than asked for are another workload."""
LAG_LIMIT_S = 0.005
"""Lateness of the client's own event loop (p99) from which latency stamps are in doubt [s]."""
CLIENT_CORES_LIMIT = 0.9
"""Processors taken by one process of the load generator from which it sets the pace itself."""
TDP_RATIO = 1.1
"""Mean power over design power from which a reading is impossible."""

NO_ENERGY = "No energy:"
Check = Callable[[PointFacts], Iterator[Finding]]


def check_point(point: PointFacts) -> tuple[Finding, ...]:
    """All findings about an operating point, the gravest first."""
    found = [finding for check in CHECKS for finding in check(point)]
    # What the missing energy says first, the meters' own checks need not say again.
    said = {f.code for f in found if f.message.startswith(NO_ENERGY)}
    found = [f for f in found if f.code not in said or f.message.startswith(NO_ENERGY)]
    order: list[Severity] = ["error", "warning", "info"]
    return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))


def verdict(findings: tuple[Finding, ...], scope: Scope) -> Verdict:
    """The verdict of one scope, from the gravest finding that touches it."""
    grave = {f.severity for f in findings if f.scope in (scope, "both")}
    if "error" in grave:
        return "invalid"
    return "doubtful" if "warning" in grave else "valid"


def _raw(point: PointFacts) -> list[RawRun]:
    return [run.raw for run in point.runs]


def _unfinished(point: PointFacts) -> Iterator[Finding]:
    """``interrupted``, ``run_failed``, ``still_running``: a run did not reach its end."""
    codes = {"interrupted": "interrupted", "failed": "run_failed", "running": "still_running"}
    for raw in _raw(point):
        if raw.status in codes:
            why = f": {raw.error_text}" if raw.error_text else ""
            message = f"Run {raw.record.run_id} is {raw.status} and not complete{why}."
            yield finding(codes[raw.status], "error", "both", message)


def _nothing_measured(point: PointFacts) -> Iterator[Finding]:
    """``nothing_measured``: no answer arrived in the measured phase."""
    if not any(run.measured or run.raw.reported for run in point.runs):
        message = "No request of the measured phase was answered."
        # A meter around a program needs no request to be right about it.
        wrapped = any(raw.record.backend.get("name") == "wrap" for raw in _raw(point))
        scope: Scope = "performance" if wrapped else "both"
        yield finding("nothing_measured", "error", scope, message)


def _failures(point: PointFacts) -> Iterator[Finding]:
    """``requests_failed``: failed requests are left out of latency; their energy is charged."""
    requests = [r for raw in _raw(point) for r in raw.requests]
    failed = [r for r in requests if not r.succeeded]
    if failed:
        share = len(failed) / len(requests)
        severity: Severity = "error" if share > FAILED_FRACTION else "warning"
        classes = Counter(str(r.error_class) for r in failed).most_common()
        counts = ", ".join(f"{count} {name}" for name, count in classes)
        message = (
            f"{len(failed)} of {len(requests)} requests failed ({counts}), the first with: "
            f"{without_credentials(str(failed[0].error_text))}. They are left out of latency; "
            "their energy is charged."
        )
        yield finding("requests_failed", severity, "performance", message)


def _tokens_missing(point: PointFacts) -> Iterator[Finding]:
    """``token_count_missing``: nobody counted the tokens, so chunks were taken for tokens."""
    missing = [r for run in point.runs for r in run.measured if r.output_tokens is None]
    if missing:
        message = (
            f"The server told no token count for {len(missing)} answers; their chunks are counted "
            f"as tokens, and a chunk is not a token. Ask it for `usage` in the stream."
        )
        yield finding("token_count_missing", "error", "both", message)


def _lengths(point: PointFacts) -> Iterator[Finding]:
    """``length_mismatch``: answers are not as long as the workload demanded."""
    measured = [r for run in point.runs for r in run.measured if r.request.ignore_eos]
    counted = [r for r in measured if r.output_tokens is not None]
    wrong = [r for r in counted if r.output_tokens != r.request.max_output_tokens]
    if wrong:
        message = (
            f"{len(wrong)} of {len(counted)} answers have another length than the workload "
            f"demands; the engine may not honour ignore_eos, or it cut answers short."
        )
        yield finding("length_mismatch", "warning", "performance", message)


def _prompt_lengths(point: PointFacts) -> Iterator[Finding]:
    """``input_length_mismatch``: prompts are not as long as the workload demanded."""
    asked = [
        (r.input_tokens, r.request.synthetic_input_tokens)
        for run in point.runs
        for r in run.measured
        # A later turn repeats answers, and text that was given has no length that was asked for.
        if r.request.turn_index == 0 and r.input_tokens and r.request.synthetic_input_tokens
    ]
    if not asked:
        return
    counted, wanted = (sum(each) for each in zip(*asked, strict=True))
    if abs(counted / wanted - 1) > PROMPT_FRACTION:
        message = (
            f"Prompts have {counted / len(asked):.0f} tokens on average by the server's count, and "
            f"the workload demands {wanted / len(asked):.0f}; it may cut them, or its template "
            f"or tokenizer adds. Joules per input token are of what was counted."
        )
        yield finding("input_length_mismatch", "warning", "performance", message)


def _percentiles(point: PointFacts) -> Iterator[Finding]:
    """``too_few_samples``: percentiles withheld because the sample does not carry them."""
    for label, share in QUANTILES.items():
        withheld = [
            f"{name} (n = {point.latency_counts[name]})"
            for name, quantiles in point.latencies.items()
            if quantiles[label].value is None and quantiles[label].reason != "gaps_not_kept"
        ]
        if withheld and any(run.measured for run in point.runs):
            message = (
                f"{label} of {', '.join(withheld)} is withheld: it takes "
                f"{needed_for_quantile(share)} values. {_more(point)}"
            )
            yield finding("too_few_samples", "info", "performance", message)


def _more(point: PointFacts) -> str:
    """What gives more values: a load of another tool has no repeats here."""
    return "Measure longer." if of_another_tool(point) else "Measure longer or add --repeats."


def _slo_missed(point: PointFacts) -> Iterator[Finding]:
    """``slo_missed``: the service level is not met at this operating point."""
    missed = [one for one in point.slo if one.met is False]
    if missed:
        shown = ", ".join(
            f"{one.objective} (found {(one.found.value or 0) * 1e3:.3g} ms)" for one in missed
        )
        message = f"The service level is not met: {shown}."
        yield finding("slo_missed", "info", "performance", message)


def _overload(point: PointFacts) -> Iterator[Finding]:
    """``overloaded``: arrivals outran the engine, so waiting grew with the length of the run."""
    for raw in _raw(point):
        unsent = [e.detail.get("unsent") for e in raw.events if e.kind == "drain_end"]
        waiting = int(str(unsent[0] or 0)) if unsent else 0
        if waiting > max(3, OVERLOAD_FRACTION * len(raw.requests)):
            message = (
                f"{waiting} requests still waited for a slot at the end, {len(raw.requests)} had "
                f"one: the load arrives faster than it is served, and latency tells how long the "
                f"run was. Lower arrivals.rate_per_s."
            )
            yield finding("overloaded", "error", "performance", message)
            return


def _client(point: PointFacts) -> Iterator[Finding]:
    """``client_lag``: the client was late itself, so its stamps are."""
    lags = [e.detail for raw in _raw(point) for e in raw.events if e.kind == "loop_lag"]
    worst_s = max((float(str(lag["p99_s"])) for lag in lags), default=0.0)
    if worst_s > LAG_LIMIT_S:
        message = (
            f"wattbench itself ran up to {worst_s * 1e3:.1f} ms late (p99 of its event loop); "
            f"latencies are that much in doubt. Leave it a free core."
        )
        yield finding("client_lag", "warning", "performance", message)


def _client_bound(point: PointFacts) -> Iterator[Finding]:
    """``client_bound``: the load generator had no processor time left, so it set the pace."""
    lags = [e.detail for raw in _raw(point) for e in raw.events if e.kind == "loop_lag"]
    cores = max((float(str(lag.get("client_busiest_cores") or 0.0)) for lag in lags), default=0.0)
    if cores > CLIENT_CORES_LIMIT:
        message = (
            f"A process of wattbench took {cores:.2f} of the one processor that it can use: "
            f"tokens/s and latencies may be its limit and not the engine's. Ask for fewer users, "
            f"or let more processes send (client_processes=2 of the backend openai)."
        )
        yield finding("client_bound", "warning", "performance", message)


def _random_weights(point: PointFacts) -> Iterator[Finding]:
    """``random_weights``: speed and energy are real, answers mean nothing."""
    if any(raw.record.engine.random_weights for raw in _raw(point)):
        message = "The model has random weights: speed and energy are real, the answers are noise."
        yield finding("random_weights", "info", "both", message)


def _emulated(point: PointFacts) -> Iterator[Finding]:
    """``emulated_device``: every figure describes a model of a machine."""
    if any(raw.record.backend.get("name") == "emulated" for raw in _raw(point)):
        message = "The device is emulated: every figure describes a model of it, not hardware."
        yield finding("emulated_device", "info", "both", message)


def _single(point: PointFacts) -> Iterator[Finding]:
    """``single_run``: the interval rests on scatter within one run."""
    if len(point.runs) == 1 and of_another_tool(point):
        message = "One run only: no interval holds what changes from run to run."
        yield finding("single_run", "info", "both", message)
    elif len(point.runs) == 1:
        message = (
            "One run only: intervals rest on its ten parts and miss what changes from run to run. "
            "Add --repeats 3 or more."
        )
        yield finding("single_run", "info", "both", message)


def _energy_unknown(point: PointFacts) -> Iterator[Finding]:
    """``no_meter``, ``no_samples``, ``not_bracketed``, ``gap``, and others: no energy.

    The others are ``counter_reset``, ``no_window``, ``empty_window``, ``read_stored_as_zero`` and
    ``not_a_number`` of a file, and ``mixed_domains`` when the repeats of a point did not
    measure the same.
    """
    seen = set()
    for run in point.runs:
        if isinstance(run.headline, Unmeasured) and run.headline.reason not in seen:
            seen.add(run.headline.reason)
            message = f"{NO_ENERGY} {run.headline.message}."
            yield finding(run.headline.reason, "error", "energy", message)
    reason = point.headline.gross.reason
    if reason is not None and reason not in seen:
        message = f"{NO_ENERGY} the repeats cannot be pooled ({reason})."
        yield finding(reason, "error", "energy", message)


def _meter_failed(point: PointFacts) -> Iterator[Finding]:
    """``meter_failed``: a meter stopped on the way."""
    for raw in _raw(point):
        for event in raw.events:
            if event.kind == "meter_failed":
                message = f"A meter failed during the run: {event.detail['message']}."
                yield finding("meter_failed", "error", "energy", message)


def _modelled(point: PointFacts) -> Iterator[Finding]:
    """``modelled_only``: no sensor was read, the joules follow from assumptions."""
    if point.headline.gross.value is not None and point.headline.kind in ("modelled", "nameplate"):
        message = (
            f"Every joule is {point.headline.kind}: {point.headline.method}. The interval rests "
            f"on stated priors, not on a sensor; `wattbench doctor` tells what would measure."
        )
        yield finding("modelled_only", "warning", "energy", message)


def _window_length(point: PointFacts) -> Iterator[Finding]:
    """``window_too_short``: the energy asks for more time, all repeats together."""
    known = [r for r in point.runs if r.window and not isinstance(r.headline, Unmeasured)]
    if not known:
        return
    periods = [d.domain.update_period_s or 0.0 for d in known[0].domains if d.used]
    needed_s = max(MIN_WINDOW_S, max(periods, default=0.0) / (2.45 * EDGE_FRACTION))
    measured_s = sum(run.window.duration_s for run in known if run.window)
    if measured_s < needed_s:
        way = "Raise measure.duration_s in the workload, or add --repeats."
        way = "Let the tool measure longer." if of_another_tool(point) else way
        message = f"{measured_s:.1f} s were measured, the energy asks for {needed_s:.0f} s. {way}"
        yield finding("window_too_short", "warning", "energy", message)


def _impossible_power(point: PointFacts) -> Iterator[Finding]:
    """``above_1.1_tdp``: more power than the machine can draw."""
    limit_watts, headline = power_limit_watts(point.runs[0].raw), point.runs[0].headline
    if limit_watts is None or not isinstance(headline, EnergyMeasurement):
        return
    mean_watts = headline.energy_joules / headline.duration_s / max(1, len(headline.devices))
    limit_watts *= TDP_RATIO
    if mean_watts > limit_watts:
        message = (
            f"Mean power of {mean_watts:.0f} W per device is above {TDP_RATIO} times its design "
            f"power ({limit_watts:.0f} W): a wrong profile or a wrong reading."
        )
        yield finding("above_1.1_tdp", "error", "energy", message)


def _no_idle(point: PointFacts) -> Iterator[Finding]:
    """``no_idle_baseline``: net energy is unknown."""
    headline = point.headline
    if headline.gross.value is not None and headline.net_loaded_idle.reason == "no_idle_baseline":
        ways = {
            "import": "",
            "wrap": " Give wrap an --idle-s.",
            None: " Set idle_s in the workload.",
        }
        way = ways[of_another_tool(point)]
        message = f"Idle was not measured, so there is no net energy.{way}"
        yield finding("no_idle_baseline", "info", "energy", message)


CHECKS: tuple[Check, ...] = (
    _unfinished,
    _nothing_measured,
    reported,
    reported_energy,
    no_interval,
    enveloped,
    shared_envelope,
    program_failed,
    _failures,
    _tokens_missing,
    _lengths,
    _prompt_lengths,
    _percentiles,
    _slo_missed,
    steadiness,
    _overload,
    _client,
    _client_bound,
    _random_weights,
    _emulated,
    _single,
    _energy_unknown,
    _meter_failed,
    elsewhere,
    neighbours,
    left_out,
    unproven,
    foreign,
    contention,
    _modelled,
    _window_length,
    alias,
    _impossible_power,
    ignores_load,
    _no_idle,
    two_paths,
    replayed,
    calibration,
    check_meters,
)
