"""Runs as lines of JSON: this project's own format, which comes back exactly as it went.

Line by line: ``{"wattbench_runs": 1}`` once; then for each run ``{"run": …}``, its ``{"request":
…}``, ``{"domain": …}`` with the samples after it as ``{"samples": …}``, ``{"event": …}``,
``{"reported": …}``, and ``{"end": run_id}``. A number is written with all of its digits, NaN as
null. A file without the end of its last run was cut off, and is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from wattbench.core.energy import CounterTrace, EnergyDomain, FloatArray, Trace, trace_of
from wattbench.core.load import InferenceRequest, Message, RequestResult
from wattbench.core.run import EngineInfo, Event, Mode, RawRun, ReportedFigure, RunRecord
from wattbench.interchange.results.document import BadDocument

VERSION = 1
HEADER = "wattbench_runs"
SAMPLES_PER_LINE = 5000


def run_lines(runs: Iterable[RawRun]) -> Iterator[bytes]:
    """Lines of a file that holds runs."""
    yield _line(HEADER, VERSION)
    for raw in runs:
        record = dataclasses.asdict(raw.record)
        yield _line("run", record | {"status": raw.status, "error_text": raw.error_text})
        for result in raw.requests:
            yield _line("request", _request_json(result))
        for trace in raw.traces:
            yield from _trace_lines(trace)
        for event in raw.events:
            yield _line("event", dataclasses.asdict(event))
        for figure in raw.reported:
            yield _line("reported", dataclasses.asdict(figure))
        yield _line("end", raw.record.run_id)


def read_runs(lines: Iterable[tuple[int, Any]], place: str) -> Iterator[RawRun]:
    """Runs of such a file, one in memory at a time.

    Args:
        lines: Number and value of each line.
        place: The file, for messages.

    Raises:
        BadDocument: If it is of a later version, says something impossible, or was cut off.
    """
    parts: _Parts | None = None
    for number, value in lines:
        try:
            ((kind, told),) = value.items()
            if kind == HEADER:
                _demand_version(told, place)
            elif kind == "run":
                parts = _Parts(told)
            elif kind == "end" and parts is not None:
                yield parts.whole()
                parts = None
            elif parts is not None:
                parts.add(kind, told)
            else:
                raise ValueError(f"{kind!r} before any run")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadDocument(f"{place}, line {number}: no line of runs ({error})") from error
    if parts is not None:
        raise BadDocument(f"{place}: cut off within run {parts.run_id}; take a whole file")


def _demand_version(version: object, place: str) -> None:
    if version != VERSION:
        raise BadDocument(
            f"{place}: version {version!r} of the format; this wattbench reads {VERSION}"
        )


class _Parts:
    """A run while its lines come in."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._told = dict(told)
        self.run_id = str(told["run_id"])
        self._requests: list[RequestResult] = []
        self._events: list[Event] = []
        self._reported: list[ReportedFigure] = []
        self._domains: list[EnergyDomain] = []
        self._samples: dict[str, list[tuple[FloatArray, FloatArray]]] = {}

    def add(self, kind: str, told: Mapping[str, Any]) -> None:
        """Take a line."""
        match kind:
            case "request":
                self._requests.append(_request(told))
            case "domain":
                domain = EnergyDomain(**{**told, "devices": tuple(told["devices"])})
                self._domains.append(domain)
                self._samples[domain.name] = []
            case "samples":
                block = _array(told["time_s"]), _array(told["value"])
                self._samples[told["domain"]].append(block)
            case "event":
                self._events.append(Event(**told))
            case "reported":
                self._reported.append(ReportedFigure(**told))
            case _:
                raise ValueError(f"unknown kind of line {kind!r}")

    def whole(self) -> RawRun:
        """The run."""
        told = self._told
        status, error_text = told.pop("status"), told.pop("error_text")
        engine = dict(told["engine"])
        engine |= {"mode": Mode(**engine["mode"]), "process_ids": tuple(engine["process_ids"])}
        told |= {
            "engine": EngineInfo(**engine),
            "meters": tuple(told["meters"]),
            "devices": None if told["devices"] is None else tuple(told["devices"]),
            "roles": {role: tuple(devices) for role, devices in told["roles"].items()},
        }
        return RawRun(
            record=RunRecord(**told),
            status=status,
            error_text=error_text,
            requests=tuple(self._requests),
            traces=tuple(self._trace(domain) for domain in self._domains),
            events=tuple(self._events),
            reported=tuple(self._reported),
        )

    def _trace(self, domain: EnergyDomain) -> Trace:
        blocks = self._samples[domain.name]
        times = np.concatenate([np.empty(0), *(time_s for time_s, _ in blocks)])
        values = np.concatenate([np.empty(0), *(value for _, value in blocks)])
        return trace_of(domain, times, values)


def _trace_lines(trace: Trace) -> Iterator[bytes]:
    yield _line("domain", dataclasses.asdict(trace.domain))
    value = trace.energy_joules if isinstance(trace, CounterTrace) else trace.power_watts
    for start in range(0, len(value), SAMPLES_PER_LINE):
        part = slice(start, start + SAMPLES_PER_LINE)
        told = {
            "domain": trace.domain.name,
            "time_s": _list(trace.time_s[part]),
            "value": _list(value[part]),
        }
        yield _line("samples", told)


def _request_json(result: RequestResult) -> dict[str, Any]:
    told = {
        field.name: getattr(result, field.name)
        for field in dataclasses.fields(result)
        if field.name not in ("request", "chunk_s", "chunk_tokens")
    }
    return told | {
        "request": dataclasses.asdict(result.request),
        "chunk_s": _list(result.chunk_s),
        "chunk_tokens": _list(result.chunk_tokens),
    }


def _request(told: Mapping[str, Any]) -> RequestResult:
    request = dict(told["request"])
    request["messages"] = tuple(Message(**message) for message in request["messages"])
    arrays = {name: _array(told[name]) for name in ("chunk_s", "chunk_tokens")}
    return RequestResult(**{**told, "request": InferenceRequest(**request), **arrays})


def _list(values: FloatArray) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values.tolist()]


def _array(values: Sequence[float | None]) -> FloatArray:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _line(kind: str, told: object) -> bytes:
    return msgspec.json.encode({kind: told}) + b"\n"
