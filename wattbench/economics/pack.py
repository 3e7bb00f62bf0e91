"""A folder of requests for measurement: in plain words, as workloads, and to be judged by."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wattbench.core.errors import UsageError, WattbenchError
from wattbench.economics.rfp import Criterion, Measurement, Request
from wattbench.economics.scenario import Scenario

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
        UsageError: If the folder holds something.
        WattbenchError: If it cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
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
    for measurement in request.measurements:
        text = _workload(scenario, request, measurement)
        (folder / _workload_name(measurement)).write_text(text, encoding="utf-8")
    stated = json.dumps(rfp_json(scenario, request), indent=2, allow_nan=False)
    (folder / "rfp.json").write_text(stated + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme(scenario, request), encoding="utf-8")
    return folder


def rfp_json(scenario: Scenario, request: Request) -> dict[str, Any]:
    """The request as what a later judgement reads."""
    pair, tier = request.pair, request.tier
    lengths = scenario.load_of(tier)
    return {
        "schema_version": SCHEMA_VERSION,
        "scenario": scenario.name,
        "model": scenario.model,
        "claim": {
            "metric": "usd_per_mtoken",
            "cheaper": pair.first.option,
            "dearer": pair.second.option,
            "ratio": pair.ratio.as_json(),
        },
        "window": {"seconds": WINDOW_S, "repeats": REPEATS, "warmup_seconds": WARMUP_S},
        "measurements": [
            {
                "option": each.option,
                "hardware": each.machine,
                "devices": each.device_count,
                "workload": _workload_name(each),
                "operating_point": {
                    "tier": tier.name,
                    "concurrency": each.concurrency,
                    "input_tokens": lengths.input_tokens,
                    "output_tokens": lengths.output_tokens,
                    "slo": tier.slo,
                    "quality_floor": _floor(request),
                },
                "boundary": each.boundary,
                "criteria": [_criterion_json(criterion, each) for criterion in each.criteria],
            }
            for each in request.measurements
        ],
    }


def _criterion_json(criterion: Criterion, measurement: Measurement) -> dict[str, Any]:
    joules = criterion.metric.endswith("_joules")
    return {
        "metric": criterion.metric,
        "unit": UNITS[criterion.metric],
        "boundary": measurement.boundary if joules else None,
        "direction": criterion.direction,
        "threshold": criterion.threshold,
        "guard": criterion.guard,
        "interval_must_lie": criterion.direction,
        "limit": criterion.limit,
    }


def _floor(request: Request) -> dict[str, Any] | None:
    floor = request.tier.quality_floor
    return None if floor is None else {"metric": floor.metric, "minimum": floor.minimum.value}


def _workload_name(measurement: Measurement) -> str:
    return f"workload-{measurement.option}.yaml"


def _workload(scenario: Scenario, request: Request, measurement: Measurement) -> str:
    slowest_s = 1 / request.tier.tokens_per_s_per_user.value
    slo = request.tier.slo or f"tpot:p50<{1e3 * slowest_s:.4g}ms"
    lengths = scenario.load_of(request.tier)
    return f"""# Measures {measurement.option} for {scenario.name}: see README.md beside this file.
name: rfp-{measurement.option}
about: "{request.tier.name} tier of {scenario.name}, {measurement.concurrency} users at once"
session:
  input_tokens: {lengths.input_tokens}
  output_tokens: {lengths.output_tokens}
arrivals: {{kind: closed, concurrency: [{measurement.concurrency}]}}
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
    asked = "\n".join(_asked(each) for each in request.measurements)
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

It is {first} if every interval (95 %) lies on the side that is asked for:

{asked}
How to measure:

- {lengths.input_tokens} tokens in, {lengths.output_tokens} out
- {WARMUP_S} s of warm-up, then {WINDOW_S} s, {REPEATS} times
- engine, version and settings are those that will be delivered
{quality}- joules are read by a meter and include all devices of the replica, also while they wait

If not all of them hold, the order stays open: put what was measured into the scenario as `points`
and run `wattbench procure` again.
"""


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
    run = f"wattbench run {_workload_name(measurement)} --repeats {REPEATS} --backend … --meter …"
    return "\n".join([*lines, "", f"```bash\n{run}\n```", ""])
