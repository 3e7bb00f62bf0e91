"""The YAML of ``wattbench import --map``: which column or field of a foreign file is which metric.

tool: my-bench
rows: results          # where the list of runs lies in a JSON document; else the document
model: {field: model_name}
operating_point: {concurrency: users}
boundary: node
devices: {field: gpus}
figures:
  - {metric: ttft_s, statistic: p50, field: ttft, unit: ms}
  - {metric: energy_joules, field: energy, unit: kWh, per_device: true}
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator, model_validator

from wattbench.core.energy import Boundary
from wattbench.core.errors import did_you_mean
from wattbench.documents import Document

_UNITS: Mapping[str, Mapping[str, float]] = {
    "time": {"s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60, "h": 3600},
    "energy": {"J": 1, "mJ": 1e-3, "kJ": 1e3, "MJ": 1e6, "Wh": 3600, "kWh": 3.6e6},
    "power": {"W": 1, "mW": 1e-3, "kW": 1e3, "MW": 1e6},
    "energy per token": {
        **{"J/token": 1, "mJ/token": 1e-3, "Wh/token": 3600},
        **{"J/Mtokens": 1e-6, "kWh/Mtokens": 3.6},
    },
    "energy per request": {
        **{"J/request": 1, "mJ/request": 1e-3, "kJ/request": 1e3},
        **{"Wh/request": 3600, "kWh/request": 3.6e6},
    },
    "rate of tokens": {"tokens/s": 1, "tokens/min": 1 / 60, "tokens/h": 1 / 3600},
    "rate of requests": {"requests/s": 1, "requests/min": 1 / 60, "requests/h": 1 / 3600},
    "rate of one user": {"tokens/s/user": 1, "tokens/s": 1},
    "number of tokens": {"tokens": 1, "ktokens": 1e3, "Mtokens": 1e6},
    "number of requests": {"requests": 1},
}
"""Units by what they measure, each with this project's unit in it."""
METRICS: Mapping[str, str] = {
    **dict.fromkeys(
        ("ttft_s", "tpot_s", "itl_s", "e2e_s", "e2e_per_output_token_s", "duration_s"), "time"
    ),
    "energy_joules": "energy",
    "energy_duration_s": "time",
    "mean_power_watts": "power",
    **dict.fromkeys(
        [f"energy_per_{kind}_token_joules" for kind in ("output", "input", "total")],
        "energy per token",
    ),
    "energy_per_request_joules": "energy per request",
    **dict.fromkeys(
        [f"{kind}_tokens_per_s" for kind in ("output", "input", "total")], "rate of tokens"
    ),
    **dict.fromkeys(("requests_per_s", "goodput_requests_per_s"), "rate of requests"),
    "interactivity_tokens_per_s_per_user": "rate of one user",
    **dict.fromkeys(("input_tokens_count", "output_tokens_count"), "number of tokens"),
    **dict.fromkeys(("completed_count", "failed_count", "good_count"), "number of requests"),
}
"""What each metric measures."""
_WORDS = {
    **{"seconds": "s", "milliseconds": "ms", "microseconds": "us", "minutes": "min", "hours": "h"},
    **{"joules": "J", "kilojoules": "kJ", "watt-hours": "Wh", "kilowatt-hours": "kWh"},
    **{"watts": "W", "kilowatts": "kW", "tok/s": "tokens/s", "req/s": "requests/s"},
    **{"qps": "requests/s", "rps": "requests/s", "tps": "tokens/s", "j/tok": "J/token"},
}
"""How else units are written, for a hint."""
_WHOLE = ("time", "rate of one user", "number of tokens", "number of requests")
"""What a device has no share of."""
_STATISTIC = re.compile(r"^(total|mean|sd|min|max|p\d{1,2}(\.\d{1,4})?)$")
Name = Annotated[str, Field(min_length=1, max_length=200)]


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"


def _nearest(unit: str, units: Collection[str]) -> str:
    """A hint at the unit that may be meant, whatever its letters' case or if written out."""
    names = {word: short for word, short in _WORDS.items() if short in units}
    names |= {short.lower(): short for short in reversed(list(units))}
    found = difflib.get_close_matches(unit.lower(), list(names), n=1, cutoff=0.5)
    return f"; did you mean {names[found[0]]!r}?" if found else ""


class FromField(Document):
    """A value that each row tells."""

    field: Name


class Figure(Document):
    """One metric of a row."""

    metric: str
    statistic: str = "total"
    field: Name
    unit: str
    per_device: bool = False

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, metric: str) -> str:
        if metric not in METRICS:
            known = ", ".join(METRICS)
            raise ValueError(f"no such metric ({known}){did_you_mean(metric, list(METRICS))}")
        return metric

    @field_validator("statistic")
    @classmethod
    def _known_statistic(cls, statistic: str) -> str:
        if not _STATISTIC.match(statistic):
            raise ValueError("one of total, mean, sd, min, max, or a percentile below p100: p99.9")
        return statistic

    @field_validator("unit")
    @classmethod
    def _fitting_unit(cls, unit: str, info: ValidationInfo) -> str:
        what = METRICS.get(info.data.get("metric", ""))
        if what is None or unit in _UNITS[what]:
            return unit
        fitting = ", ".join(_UNITS[what])
        hint = _nearest(unit, _UNITS[what])
        wrong = f"no unit of {info.data['metric']}, which is {_article(what)} {what}"
        raise ValueError(f"{wrong} ({fitting}){hint}")

    @model_validator(mode="after")
    def _divisible(self) -> Figure:
        if self.per_device and METRICS[self.metric] in _WHOLE:
            what = METRICS[self.metric]
            raise ValueError(f"{self.metric} is {_article(what)} {what}, never one per device")
        return self

    @property
    def scale_ratio(self) -> float:
        """This project's unit in one of the file's."""
        return _UNITS[METRICS[self.metric]][self.unit]


class Window(Document):
    """Fields of start and end in Unix time, so that a log of power can be put beside the run."""

    start: Name
    end: Name
    unit: str = "s"

    @field_validator("unit")
    @classmethod
    def _of_time(cls, unit: str) -> str:
        times = _UNITS["time"]
        if unit not in times:
            hint = _nearest(unit, times)
            raise ValueError(f"no unit of time ({', '.join(times)}){hint}")
        return unit

    @property
    def scale_ratio(self) -> float:
        """Seconds in one of the file's units."""
        return _UNITS["time"][self.unit]


class ResultMap(Document):
    """The whole mapping."""

    tool: Name
    tool_version: Name | FromField | None = None
    rows: Name | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    model: Name | FromField | None = None
    engine: Name | FromField | None = None
    hardware: Name | FromField | None = None
    operating_point: dict[Name, Name] = Field(default_factory=dict)
    boundary: Boundary | None = None
    energy_method: str = ""
    devices: Annotated[int, Field(ge=1, le=1_000_000)] | FromField | None = None
    window: Window | None = None
    figures: Annotated[list[Figure], Field(min_length=1)]

    @field_validator("figures")
    @classmethod
    def _once_each(cls, figures: list[Figure], info: ValidationInfo) -> list[Figure]:
        named = [(figure.metric, figure.statistic) for figure in figures]
        twice = next((each for each in named if named.count(each) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice[0]} {twice[1]} stands twice; which one is meant?")
        joules = next((f.metric for f in figures if _of_energy(f.metric)), None)
        if joules is not None and info.data.get("boundary") is None:
            raise ValueError(f"{joules} needs boundary: what its joules include, such as board")
        shared = next((f.metric for f in figures if f.per_device), None)
        if shared is not None and info.data.get("devices") is None:
            raise ValueError(f"{shared} is per device and needs devices, a number or a field")
        return figures


def _of_energy(metric: str) -> bool:
    return METRICS[metric].startswith(("energy", "power"))
