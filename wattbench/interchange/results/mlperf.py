"""MLPerf Inference's LoadGen: ``mlperf_log_summary.txt``, with ``mlperf_log_detail.txt`` beside it.

Source: mlcommons/inference ``loadgen/results.cc``. The summary has the figures, in nanoseconds.
The detail tells when power was to be read, in local time without a zone, and its own start in
UTC: the two and the log's own milliseconds give the zone. The power itself is PTDaemon's log,
which ``wattbench attach --format ptdaemon`` puts beside the run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from wattbench.core.run import Json
from wattbench.interchange.results.document import BadDocument, Document
from wattbench.interchange.results.fields import Fields
from wattbench.interchange.results.glance import Glance
from wattbench.interchange.results.measurement import Measurement, Note

NAME = "mlperf"
_TITLE = "MLPerf Results Summary"
_MARK = ":::MLLOG"
_LINE = re.compile(r"^\s*(.+?)\s*:\s*(.*?)\s*$")
_RATES = {
    "Samples per second": "requests_per_s",
    "Completed samples per second": "requests_per_s",
    "Scheduled samples per second": "scheduled_requests_per_s",
    "Tokens per second": "output_tokens_per_s",
    "Completed tokens per second": "output_tokens_per_s",
    "TPS w/ loadgen overhead": "output_tokens_per_s",
    "QPS w/ loadgen overhead": "requests_per_s",
}
_LATENCY = re.compile(
    r"^(?:(Min|Max|Mean)|([0-9.]+)(?:th)? percentile) "
    r"(latency|first token latency|time to output token) \(ns\)$",
    re.IGNORECASE,
)
_METRICS = {
    "latency": "e2e_s",
    "first token latency": "ttft_s",
    "time to output token": "tpot_s",
}
_TEXTS = ("SUT name", "Scenario", "Mode", "Result is")
_STAMP = "%m-%d-%Y %H:%M:%S.%f"
ZONE_STEP_S = 900.0
"""Zones are whole quarters of an hour from UTC."""
ZONE_DOUBT_S = 60.0
PTDAEMON = "its power is PTDaemon's log: wattbench attach RUN --log spl.txt --format ptdaemon"


def sniff(glance: Glance) -> str | None:
    """The layout, None if it is another tool's file."""
    if glance.form != "text":
        return None
    if _TITLE in glance.first:
        return "summary"
    return "detail" if glance.first.lstrip().startswith(_MARK) else None


def read(glances: Sequence[Glance]) -> Iterator[Measurement]:
    """One measurement for each summary, and for a detail that has none."""
    pairs: dict[str, dict[str, Document]] = {}
    for glance in glances:
        layout = sniff(glance) or "summary"
        name = glance.document.path.name.replace(layout, "")
        pairs.setdefault(name, {})[layout] = glance.document
    for pair in pairs.values():
        yield _measurement(pair.get("summary"), pair.get("detail"))


def _measurement(summary: Document | None, detail: Document | None) -> Measurement:
    told = _Detail() if detail is None else _read_detail(detail)
    files = [document for document in (summary, detail) if document is not None]
    place = str(files[0].path)
    fields = Fields(place, {} if summary is None else _values(summary))
    texts = {name: fields.text(name) for name in _TEXTS}
    mode = texts["Mode"]
    if mode is not None and "performance" not in mode.lower():
        raise BadDocument(f"{place}: Mode is {mode}, so nothing was timed; give a performance run")
    if "INVALID" in (texts["Result is"] or ""):
        why = "INVALID: a constraint of LoadGen is not met, see its recommendations"
        fields.note("refused", "Result is", why)
    _take_figures(fields, texts["Scenario"])
    notes = [*fields.notes(), *told.notes]
    notes.append(Note(fate="kept", field="power", why=PTDAEMON))
    rate = fields.number("target_qps")
    point: dict[str, Json] = {}
    if rate is not None and (texts["Scenario"] or "").lower() == "server":
        point = {"rate_per_s": rate}
    return Measurement(
        tool=NAME,
        layout="summary and detail" if summary and detail else "summary" if summary else "detail",
        files=tuple(document.path.name for document in files),
        tool_version=told.version,
        engine=texts["SUT name"],
        operating_point=point,
        workload={"name": f"{NAME} {texts['Scenario'] or ''}".strip()},
        clock="unix" if told.window_s else None,
        window_s=told.window_s,
        reported=fields.reported,
        notes=tuple(notes),
    )


def _values(summary: Document) -> dict[str, Json]:
    """What the lines ``name : value`` say; a number stands for itself."""
    values: dict[str, Json] = {}
    for line in summary.text().splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        name, text = re.sub(r"\s+", " ", found.group(1)), found.group(2)
        try:
            values.setdefault(name, float(text) if name not in _TEXTS else text)
        except ValueError:
            values.setdefault(name, text)
    return values


def _take_figures(fields: Fields, scenario: str | None) -> None:
    for name in list(fields):
        found, rate = _LATENCY.match(name), _RATES.get(name)
        if rate is None and found is None:
            if "inferred" in name.lower():
                fields.note("refused", name, "inferred from samples, not counted")
            continue
        if fields.number(name) == 0.0:
            fields.note("refused", name, "0 stands for what was not measured")
        elif rate is not None:
            fields.report(name, rate)
        elif found is not None:
            word, percent, of = found.groups()
            statistic = word.lower() if word else f"p{float(percent):.6g}"
            metric = _METRICS[of.lower()]
            if metric == "e2e_s" and (scenario or "").lower().startswith("multi"):
                metric = "query_latency_s"  # a query of several samples
            fields.report(name, metric, statistic, scale_ratio=1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Detail:
    """What the detail tells."""

    version: str | None = None
    window_s: tuple[float, float] | None = None
    notes: tuple[Note, ...] = ()


def _read_detail(document: Document) -> _Detail:
    entries: dict[str, tuple[str, float]] = {}
    for number, line in enumerate(document.text().splitlines(), 1):
        if not line.startswith(_MARK):
            continue
        try:
            entry = msgspec.json.decode(line.removeprefix(_MARK))
            entries[str(entry["key"])] = (str(entry["value"]), float(entry["time_ms"]) * 1e-3)
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, RecursionError) as error:
            place = f"{document.path}, line {number}"
            raise BadDocument(f"{place}: not a line of LoadGen's detail ({error})") from error
    version = entries.get("loadgen_version", (None, 0.0))[0]
    if not {"power_begin", "power_end"} <= entries.keys():
        return _Detail(version=version)
    zone_s = _zone_s(entries)
    if zone_s is None:
        why = "local time, and no test_datetime in UTC tells of which zone"
        note = Note(fate="refused", field="power_begin", why=why)
        return _Detail(version=version, notes=(note,))
    try:
        start_s, end_s = (
            _local_s(entries[name][0]) - zone_s for name in ("power_begin", "power_end")
        )
    except ValueError as error:
        raise BadDocument(f"{document.path}: power_begin or power_end: {error}") from error
    if end_s <= start_s:
        raise BadDocument(f"{document.path}: power_end is not after power_begin")
    why = f"local time, {zone_s / 3600:+g} h from UTC by test_datetime"
    notes = tuple(
        Note(fate="converted", field=name, why=why) for name in ("power_begin", "power_end")
    )
    return _Detail(version=version, window_s=(start_s, end_s), notes=notes)


def _local_s(text: str) -> float:
    """A local time as if it were UTC [s]."""
    return datetime.strptime(text, _STAMP).replace(tzinfo=UTC).timestamp()


def _zone_s(entries: dict[str, tuple[str, float]]) -> float | None:
    """How far the local time is ahead of UTC [s], None if that cannot be told."""
    text, test_s = entries.get("test_datetime", ("", 0.0))
    if not text.endswith("Z"):
        return None
    try:
        began_s = datetime.fromisoformat(text.removesuffix("Z") + "+00:00").timestamp()
        begin, begin_s = entries["power_begin"]
        ahead_s = _local_s(begin) - (began_s + begin_s - test_s)
    except ValueError:
        return None
    zone_s = round(ahead_s / ZONE_STEP_S) * ZONE_STEP_S
    return zone_s if abs(ahead_s - zone_s) < ZONE_DOUBT_S else None
