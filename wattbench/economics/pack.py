"""A folder of requests for measurement: in plain words, as workloads, and to be judged by."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wattbench.core.errors import UsageError, WattbenchError
from wattbench.economics.rfp import Claim, Criterion, Measurement, Request
from wattbench.economics.scenario import Scenario, Tier

SCHEMA_VERSION = 1
WINDOW_S = 600
REPEATS = 3
WARMUP_S = 120
UNITS = {"output_tokens_per_s": "tokens/s", "energy_per_output_token_joules": "J per output token"}


def write_pack(folder: Path, scenario: Scenario, requests: Sequence[Request]) -> list[Path]:
    """A folder for each request that a measurement can answer.

    Args:
        folder: Must not exist, or be empty.
        scenario: What the requests are about.
        requests: From `requests_for`.

    Raises:
        UsageError: If the folder holds something, or is a file.
        WattbenchError: If it cannot be written.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--rfp {folder}: is a file; name a new folder")
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"--rfp {folder}: is there and not empty; name a new folder")
        return [
            _write(folder / request.folder, scenario, request)
            for request in requests
            if request.measurements
        ]
    except OSError as error:
        raise WattbenchError(f"--rfp {folder}: cannot be written ({error.strerror})") from error


def _write(folder: Path, scenario: Scenario, request: Request) -> Path:
    folder.mkdir(parents=True)
    for option in dict.fromkeys(each.option for each in request.measurements):
        text = _workload(scenario, request, option)
        (folder / _workload_name(option)).write_text(text, encoding="utf-8")
    stated = json.dumps(rfp_json(scenario, request), indent=2, allow_nan=False)
    (folder / "rfp.json").write_text(stated + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme(scenario, request), encoding="utf-8")
    return folder


def rfp_json(scenario: Scenario, request: Request) -> dict[str, Any]:
    """The request as what a later judgement reads."""
    pair, tier = request.pair, request.tier
    return {
        "schema_version": SCHEMA_VERSION,
        "scenario": scenario.name,
        "model": scenario.model,
        "tier": tier.name,
        "ratio": {"metric": "usd_per_mtoken", **pair.ratio.as_json()},
        "window": {"seconds": WINDOW_S, "repeats": REPEATS, "warmup_seconds": WARMUP_S},
        "claims": [
            {
                "cheaper": claim.cheaper,
                "dearer": claim.dearer,
                "reason": claim.why or None,
                "measurements": [
                    _measurement_json(scenario, tier, each) for each in claim.measurements
                ],
            }
            for claim in request.claims
        ],
    }


def _measurement_json(scenario: Scenario, tier: Tier, each: Measurement) -> dict[str, Any]:
    lengths, floor = scenario.load_of(tier), tier.quality_floor
    return {
        "option": each.option,
        "hardware": each.machine,
        "devices": each.device_count,
        "workload": _workload_name(each.option),
        "operating_point": {
            "tier": tier.name,
            "concurrency": each.concurrency,
            "input_tokens": lengths.input_tokens,
            "output_tokens": lengths.output_tokens,
            "slo": tier.slo,
            "quality_floor": None
            if floor is None
            else {"metric": floor.metric, "minimum": floor.minimum.value},
        },
        "boundary": each.boundary,
        "criteria": [_criterion_json(criterion, each) for criterion in each.criteria],
    }


def _criterion_json(criterion: Criterion, measurement: Measurement) -> dict[str, Any]:
    joules = criterion.metric.endswith("_joules")
    return {
        "metric": criterion.metric,
        "unit": UNITS[criterion.metric],
        "boundary": measurement.boundary if joules else None,
        "threshold": criterion.threshold,
        "guard": criterion.guard,
        "interval_must_lie": criterion.direction,
        "limit": criterion.limit,
    }


def _workload_name(option: str) -> str:
    return f"workload-{option}.yaml"


def _workload(scenario: Scenario, request: Request, option: str) -> str:
    users = sorted({each.concurrency for each in request.measurements if each.option == option})
    slowest_s = 1 / request.tier.tokens_per_s_per_user.value
    slo = request.tier.slo or f"tpot:p50<{slowest_s:.6f}s"
    lengths = scenario.load_of(request.tier)
    return f"""# Measures {option} for {scenario.name}: see README.md beside this file.
name: rfp-{option.replace("+", "-")}
about: "{option} in the {request.tier.name} tier of {scenario.name}"
session:
  input_tokens: {lengths.input_tokens}
  output_tokens: {lengths.output_tokens}
arrivals: {{kind: closed, concurrency: {users}}}
idle_s: 60.0
warmup: {{duration_s: {WARMUP_S}.0, requests_per_user: 1}}
measure: {{duration_s: {WINDOW_S}.0}}
ignore_eos: true
slo: "{slo}"
seed: 1
"""


def _readme(scenario: Scenario, request: Request) -> str:
    pair, tier = request.pair, request.tier
    first, second, ratio = pair.first.option, pair.second.option, pair.ratio
    asked = "\n".join(_claimed(claim) for claim in request.claims)
    floor, lengths = tier.quality_floor, scenario.load_of(tier)
    speed = tier.tokens_per_s_per_user.value
    quality = (
        f"- {floor.metric} of the model as served is {floor.minimum.value:g} or more\n"
        if floor
        else ""
    )
    return f"""# Request for measurement: {first} or {second}

Model {scenario.model}, tier *{tier.name}*: {speed:g} tokens/s for each user.

A million output tokens of {second} cost {ratio.value:.2f} times those of {first}, with a 90 %
band of {ratio.low:.3g} to {ratio.high:.3g}. That does not say which one is cheaper: {pair.why}.

{asked}
How to measure:

- {lengths.input_tokens} tokens in, {lengths.output_tokens} out
- `wattbench run workload-….yaml --repeats {REPEATS} --backend … --meter …`
- {WARMUP_S} s of warm-up, then {WINDOW_S} s, {REPEATS} times
- engine, version and settings are those that will be delivered
{quality}- joules are read by a meter and include all devices of the replica, also while they wait

If neither holds, the order stays open: put what was measured into the scenario as `measured`
or `points` and run `wattbench procure` again.
"""


def _claimed(claim: Claim) -> str:
    if not claim.measurements:
        return (
            f"Nothing that could be measured shows that {claim.cheaper} is cheaper: {claim.why}.\n"
        )
    asked = "\n".join(_asked(each) for each in claim.measurements)
    return (
        f"## {claim.cheaper} is cheaper\n\nif every interval (95 %) lies on the side that is asked "
        f"for:\n\n{asked}"
    )


def _asked(measurement: Measurement) -> str:
    lines = [
        f"**{measurement.option}** ({measurement.machine}), devices of a replica: "
        f"{measurement.device_count}, users at once: {measurement.concurrency}",
        "",
        "| metric | boundary | interval must lie | threshold | guard band | limit |",
        "|---|---|---|---|---|---|",
    ]
    for each in measurement.criteria:
        boundary = measurement.boundary if each.metric.endswith("_joules") else "–"
        lines.append(
            f"| `{each.metric}` | {boundary} | {each.direction} the limit | {each.threshold:.4g} "
            f"| {each.guard:.3g} | {each.limit:.4g} |"
        )
    return "\n".join([*lines, ""])
