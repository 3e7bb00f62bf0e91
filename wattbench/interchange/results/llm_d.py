"""llm-d-benchmark's report 0.2, as YAML or JSON: that of other tools, and what this one exports.

Each block of statistics tells its own unit. The report has no place for joules and tells no
boundary of its power, so power is refused, but for a report of wattbench: that one has energy,
boundary and tokens of the window in ``results.profiling``.

Source: llmd-benchmark-report 0.2.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from wattbench.core.energy import BOUNDARIES, Boundary
from wattbench.core.errors import DocumentError
from wattbench.core.run import Json, Mode, ReportedFigure
from wattbench.documents import yaml_value
from wattbench.interchange.results.document import BadDocument
from wattbench.interchange.results.fields import Fields
from wattbench.interchange.results.glance import Glance
from wattbench.interchange.results.measurement import Measurement

NAME = "llm-d"
KNOWN_VERSION = "0.2"
_HEAD = re.compile(r"^version:\s*['\"]?0\.\d", re.MULTILINE)
_SECTION = re.compile(r"^(run|scenario):", re.MULTILINE)
_LATENCIES = {
    "time_to_first_token": "ttft_s",
    "time_per_output_token": "tpot_s",
    "inter_token_latency": "itl_s",
    "request_latency": "e2e_s",
    "normalized_time_per_output_token": "e2e_per_output_token_s",
}
_RATES = {
    "output_token_rate": "output_tokens_per_s",
    "input_token_rate": "input_tokens_per_s",
    "total_token_rate": "total_tokens_per_s",
    "request_rate": "requests_per_s",
}
_UNITS: Mapping[str, float] = {
    **{"s": 1.0, "ms": 1e-3, "s/token": 1.0, "ms/token": 1e-3},
    **{"tokens/s": 1.0, "queries/s": 1.0},
}
"""This project's unit in one of the report's."""
_STATISTIC = re.compile(r"^(mean|stddev|min|max|p\d{1,2}(p\d+)?)$")
_SECONDS = re.compile(r"^PT(\d+(?:\.\d+)?)S$")


def sniff(glance: Glance) -> str | None:
    """The layout, None if it is another tool's file."""
    if glance.form == "text":
        return "yaml" if _HEAD.search(glance.first) and _SECTION.search(glance.first) else None
    if not glance.keys >= {"version", "scenario"} or not glance.keys & {"results", "metrics"}:
        return None
    return "json" if str(glance.first["version"]).startswith("0.") else None


def read(glances: Sequence[Glance]) -> Iterator[Measurement]:
    """One measurement for each report."""
    for glance in glances:
        if glance.form != "text":
            for place, value in glance.objects():
                yield _measurement(Fields(place, value))
            continue
        path = str(glance.document.path)
        try:
            yield _measurement(Fields(path, yaml_value(glance.document.text(), path)))
        except DocumentError as error:
            raise BadDocument(str(error)) from error


def _measurement(fields: Fields) -> Measurement:
    version = str(fields.raw("version"))
    if not version.startswith(KNOWN_VERSION):
        raise BadDocument(f"{fields.place}: version is {version}; reports {KNOWN_VERSION} are read")
    about, load = _component(fields), _inside(fields, "scenario", "load", "standardized")
    results = fields.nested("results")
    performance = _inside(fields, "results", "request_performance", "aggregate")
    if performance is not None:
        _take_performance(performance)
    own = _inside(fields, "results", "profiling", "wattbench")
    boundary = _take_own(own) if own is not None else None
    if results is not None and boundary is None and "observability" in results:
        why = "tells no boundary of its power, and no joules"
        results.note("refused", "observability", why, claimed=False)
    window_s = _window_s(fields)
    return Measurement(
        tool=NAME,
        tool_version=load.text("tool_version") if load is not None else None,
        layout=version,
        **about,
        operating_point=_point(load),
        workload={"name": (load.text("tool") if load is not None else None) or NAME},
        clock="unix" if window_s else None,
        window_s=window_s,
        reported=fields.reported,
        boundary=boundary,
        energy_method="of the report's own measurement" if boundary else "",
        notes=fields.notes(),
    )


def _inside(fields: Fields, *names: str) -> Fields | None:
    """An object along a path of names; None if one of them is not there."""
    found: Fields | None = fields
    for name in names:
        found = found.nested(name) if found is not None else None
    return found


def _component(fields: Fields) -> dict[str, Any]:
    """What the report says of the engine; of several components the first that has a model."""
    scenario = fields.nested("scenario")
    stack = (scenario.items("stack") if scenario is not None else None) or []
    for index, one in enumerate(stack):
        component = Fields(fields.place, one, parent=scenario, prefix=f"scenario.stack.{index}")
        told = component.nested("standardized")
        model = told.nested("model") if told is not None else None
        if told is None or model is None:
            continue
        accelerator = told.nested("accelerator")
        count = accelerator.count("count") if accelerator is not None else None
        return {
            "model": model.text("name"),
            "engine": told.text("tool"),
            "hardware": accelerator.text("model") if accelerator is not None else None,
            "device_count": count or None,
            "mode": Mode(precision=told.text("precision"), speculative=told.text("speculative")),
        }
    return {}


def _point(load: Fields | None) -> dict[str, Json]:
    users = load.count("concurrency") if load is not None else None
    rate = load.number("rate_qps") if load is not None else None
    if users is not None:
        return {"concurrency": users}
    return {} if rate is None else {"rate_per_s": rate}


def _take_performance(performance: Fields) -> None:
    requests, latency = performance.nested("requests"), performance.nested("latency")
    throughput = performance.nested("throughput")
    if requests is not None:
        total, failures = requests.count("total"), requests.report("failures", "failed_count")
        if total is not None and failures is not None:
            figure = ReportedFigure(
                metric="completed_count", statistic="total", value=total - failures, field="total"
            )
            requests.add(figure, "less the failures")
    for name, metric in _LATENCIES.items() if latency is not None else ():
        block = latency.nested(name) if latency is not None else None
        for statistic in list(block) if block is not None else ():
            if block is not None and _STATISTIC.match(statistic):
                _take(block, statistic, metric, _canonical(statistic))
    for name, metric in _RATES.items() if throughput is not None else ():
        block = throughput.nested(name) if throughput is not None else None
        if block is not None:
            _take(block, "mean", metric, "total")


def _canonical(statistic: str) -> str:
    """``p99p9`` is p99.9."""
    if statistic == "stddev":
        return "sd"
    return "p" + statistic[1:].replace("p", ".") if statistic[0] == "p" else statistic


def _take(block: Fields, name: str, metric: str, statistic: str) -> None:
    unit = block.text("units")
    if unit is None or unit not in _UNITS:
        block.note("refused", name, f"its unit {unit!r} is not known")
    elif block.number(name) == 0.0 and name != "stddev" and not _has_sample(block):
        block.note("refused", name, "0 of an empty sample")
    else:
        block.report(name, metric, statistic, scale_ratio=_UNITS[unit])


def _has_sample(block: Fields) -> bool:
    """Whether a zero of a block is one of a sample: two tokens of one packet have no gap."""
    return any((block.number(name) or 0.0) > 0 for name in ("count", "mean"))


def _take_own(own: Fields) -> Boundary | None:
    """Joules and tokens of the window, as this project exports them; the boundary of the joules."""
    tokens, windows = own.nested("tokens"), own.items("windows") or []
    if tokens is not None:
        tokens.report("input", "input_tokens_count")
        tokens.report("output", "output_tokens_count")
    lengths = [Fields(own.place, one, parent=own).number("duration_s") for one in windows]
    known = [length_s for length_s in lengths if length_s is not None]
    if known and len(known) == len(windows):
        figure = ReportedFigure(
            metric="duration_s", statistic="total", value=sum(known), field="windows"
        )
        own.add(figure, "the sum of all windows")
    headline = _inside(own, "energy", "headline")
    gross = headline.nested("gross_joules") if headline is not None else None
    told = headline.text("boundary") if headline is not None else None
    boundary = next((one for one in BOUNDARIES if one == told), None)
    if headline is None or gross is None or boundary is None:
        return None
    kind = headline.text("kind")
    if kind in ("modelled", "nameplate"):
        gross.note("refused", "value", f"{kind}, so not measured", claimed=False)
        return None
    return boundary if gross.report("value", "energy_joules") is not None else None


def _window_s(fields: Fields) -> tuple[float, float] | None:
    """Start and end of the run [Unix s], if it is one window and not several with gaps."""
    time = _inside(fields, "run", "time")
    if time is None:
        return None
    instants = []
    for name in ("start", "end"):
        text = time.text(name)
        try:
            instant = datetime.fromisoformat(text) if text else None
        except ValueError as error:
            raise time.bad(name, text, "not a time of ISO 8601") from error
        if instant is None or instant.tzinfo is None:
            return None
        instants.append(instant.timestamp())
    found = _SECONDS.match(time.text("duration") or "")
    length_s = instants[1] - instants[0]
    if length_s <= 0 or (found and abs(float(found[1]) - length_s) > 0.01 * length_s):
        return None
    return instants[0], instants[1]
