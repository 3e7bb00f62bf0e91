"""Power and energy from Prometheus: an exporter's page, or a query to a Prometheus server.

Without ``query`` the URL is read as a page of the text format, and the series of two exporters are
looked for: NVIDIA's DCGM exporter (``DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION`` [mJ] and
``DCGM_FI_DEV_POWER_USAGE`` [W] per GPU) and Kepler (``kepler_node_cpu_joules_total`` per zone).
With ``query`` the URL is a Prometheus server, and every series of the result is a device; ``label``
says which of its labels names it.

A name that two series share would mix their values, and is refused. Kepler's ``psys`` zone
contains the packages and is left out beside them. A reading is stamped at the middle of its round
trip; the exporter's own stamps only show what its clock says, by those that are new. Prior on
readings: gain within ± 5 %, offset within ± 5 W, uniform.

Source: NVIDIA's statements of ± 5 % and ± 5 W for board power (NVML API reference, 2025); metric
names of the DCGM exporter (its default counters; the reasons for throttling by both their names)
and of Kepler 0.10 (docs/user/metrics.md).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from wattbench.core.energy import Boundary, EnergyDomain, Quantity
from wattbench.core.errors import MeterError
from wattbench.core.run import Json
from wattbench.interchange.prometheus_text import Sample, parse_page
from wattbench.meters.http_page import (
    HttpStatusError,
    PageReader,
    checked_url,
    is_loopback,
    login_header,
    refusal,
)
from wattbench.meters.polling import Clock, PolledMeter, Reading, Source
from wattbench.plugins import PluginContext, option

ENERGY_SERIES = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
POWER_SERIES = "DCGM_FI_DEV_POWER_USAGE"
THROTTLE_SERIES = ("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", "DCGM_FI_DEV_CLOCKS_EVENT_REASONS")
KEPLER_SERIES = "kepler_node_cpu_joules_total"
SERIES = (ENERGY_SERIES, POWER_SERIES, *THROTTLE_SERIES, KEPLER_SERIES)
BLANK = {ENERGY_SERIES: 2.0**62, POWER_SERIES: 2.0**46}
"""From here on DCGM means that it has no value: its marks lie near 2^63 and at 2^47."""
SLOWED = 0x4 | 0x8 | 0x20 | 0x40 | 0x80
"""NVML's bits for power cap, hardware slowdown, thermal and power brake; idle clocks are not."""
CLOCK_CHANGE_S = 0.2
"""A sensor's clock is noted when it is off by this much more than before [s]."""
DEVICE_LABELS = ("gpu", "device", "instance", "node")
"""Labels that name a device, the first that a series has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusOptions:
    """Options of ``--meter prometheus``."""

    url: str = option("http://127.0.0.1:9400/metrics", "an exporter's page, or with query a server")
    query: str | None = option(
        None, "PromQL that gives watts or joules, in quotes if it has commas"
    )
    label: str | None = option(None, "label that names a device; none: gpu, device, instance, node")
    quantity: Literal["power", "energy"] = option("power", "what the query gives: W, or J so far")
    scale: float = option(1.0, "factor from the query's unit to W or J")
    user: str | None = option(None, "login, if the server wants one")
    password_env: str = option("PROMETHEUS_PASSWORD", "environment variable with the password")
    insecure: bool = option(False, "allow a login over http:// to another machine")
    boundary: Boundary = option("board", "what the power includes")
    period_s: float | None = option(None, "time between two reads [s]; none: found out")
    timeout_s: float = option(2.0, "longest wait for an answer [s]")
    gain_half_width_fraction: float = option(0.05, "prior on the gain: uniform within this")
    offset_half_width_watts: float = option(5.0, "prior on the offset: uniform within this [W]")

    def __post_init__(self) -> None:
        """Refuse what cannot be read, or would give a password away."""
        parts = checked_url(self.url)
        clear = parts.scheme == "http" and not is_loopback(parts.hostname or "")
        if self.user is not None and clear and not self.insecure:
            raise ValueError(
                f"url=http://{parts.hostname} would carry the password in clear: use https://, "
                "or insecure=true"
            )
        if self.period_s is not None and not 0.005 <= self.period_s <= 60.0:
            raise ValueError(f"period_s={self.period_s:g} must be from 0.005 to 60 s")


class PrometheusMeter(PolledMeter):
    """Reads an exporter's page (DCGM, Kepler), or any query of a Prometheus server."""

    Options = PrometheusOptions

    def __init__(self, options: PrometheusOptions, context: PluginContext) -> None:
        super().__init__(options.period_s)
        self._options = options

    def open_source(self) -> Source:
        """Find the devices.

        Raises:
            MeterError: If the URL does not answer, or has no power and no energy in it.
        """
        options = self._options
        login = login_header(options.user, options.password_env) if options.user else {}
        reader = PageReader(options.url, options.query, options.timeout_s, headers=login)
        try:
            return _Series(options, reader)
        except HttpStatusError as error:
            if error.status in (401, 403):
                raise refusal(error, options.user, options.password_env) from error
            raise MeterError(error.reason, self._fix()) from error
        except MeterError as error:
            raise MeterError(error.reason, error.fix or self._fix()) from error

    def _fix(self) -> str:
        if self._options.query is not None:
            return "Try the query on the server's own page: http://HOST:9090/graph"
        return "Name the exporter's page: --meter prometheus,url=http://HOST:9400/metrics"


class _Series(Source):
    """The series of one URL that are power or energy."""

    updates_together = True

    def __init__(self, options: PrometheusOptions, reader: PageReader) -> None:
        self._options = options
        self._reader = reader
        self._events: list[tuple[str, Mapping[str, Json]]] = []
        self._throttled = False
        self._stamp_unix_s: dict[str, float] = {}
        self._clock_offset_s: dict[str, float] = {}
        try:
            keys = self._keys()
        except MeterError:
            self.close()
            raise
        self._names = {key: self._domain(key, sample, set(keys)) for key, sample in keys.items()}
        self.domains = tuple(self._names.values())

    def _keys(self) -> dict[tuple[str, str], Sample]:
        """The series that are there, one per device and kind.

        Raises:
            MeterError: If there is none, or two have one name.
        """
        samples = self._samples()
        found = [(key, s) for s in samples if (key := self._key(s)) is not None]
        keys = dict(found)
        if self._options.query is not None and len(found) < len(samples):
            known = ", ".join(sorted({label for s in samples for label in s.labels})) or "none"
            raise MeterError(
                f"a series of query {self._options.query!r} has no label {self._options.label!r}",
                f"Its labels are {known}.",
            )
        if not keys:
            raise self._nothing()
        ((device, _), count), *_ = Counter(key for key, _ in found).most_common(1)
        if count > 1:
            raise MeterError(
                f"{count} series of {self._reader.shown_url} are called {device!r}",
                "Tell them apart: with query=… add label=… for a label that differs, such as UUID.",
            )
        if ("package", KEPLER_SERIES) in keys:
            keys.pop(("psys", KEPLER_SERIES), None)
        return keys

    def close(self) -> None:
        self._reader.close()

    def _nothing(self) -> MeterError:
        if self._options.query is not None:
            return MeterError(f"query {self._options.query!r} of {self._reader.shown_url} is empty")
        wanted = f"{ENERGY_SERIES}, {POWER_SERIES} nor {KEPLER_SERIES}"
        return MeterError(
            f"{self._reader.shown_url} answers, but has neither {wanted}",
            "Name the address of a DCGM exporter or of Kepler, or add query=… for a server.",
        )

    def _samples(self) -> list[Sample]:
        if self._options.query is None:
            return parse_page(self._reader.text(), SERIES)
        return [
            Sample(name="query", labels=labels, value=value, stamp_unix_s=None)
            for labels, value in self._reader.query_result()
        ]

    def _key(self, sample: Sample) -> tuple[str, str] | None:
        """Device and series of a sample, None if it is neither power nor energy."""
        labels, wanted = sample.labels, self._options.label
        if sample.name == "query":
            names = (wanted,) if wanted else DEVICE_LABELS
            named = next((labels[name] for name in names if name in labels), None)
            if wanted and named is None:
                return None
            shown = named or ",".join(f"{k}={v}" for k, v in sorted(labels.items()))
            return shown or "0", "query"
        if sample.name == KEPLER_SERIES:
            return labels.get("zone", "package"), KEPLER_SERIES
        if not sample.value < BLANK.get(sample.name, 0.0):
            return None
        return labels.get("gpu") or labels.get("UUID") or "0", sample.name

    def _domain(
        self, key: tuple[str, str], sample: Sample, keys: set[tuple[str, str]]
    ) -> EnergyDomain:
        device, series = key
        counter = series in (ENERGY_SERIES, KEPLER_SERIES) or (
            series == "query" and self._options.quantity == "energy"
        )
        quantity: Quantity = "energy_counter" if counter else "power"
        prefix = {"query": "", KEPLER_SERIES: "cpu:"}.get(series, "gpu:")
        name, boundary = f"{prefix}{device}", self._options.boundary
        both = series == POWER_SERIES and (device, ENERGY_SERIES) in keys
        parent = name if both else None
        if series == KEPLER_SERIES:
            boundary = "package"
            inside = device not in ("package", "dram") and ("package", series) in keys
            parent = "cpu:package" if inside else None
        return EnergyDomain(
            name=f"{name}/power" if both else name,
            meter="prometheus",
            quantity=quantity,
            kind="counter" if counter else "integrated",
            boundary=boundary,
            devices=(sample.labels.get("UUID") or name,),
            parent=parent,
            method=f"{self._options.query or series} of {self._reader.shown_url}",
            gain_half_width_fraction=self._options.gain_half_width_fraction,
            offset_half_width_watts=self._options.offset_half_width_watts,
        )

    def read(self, now_s: Clock) -> list[Reading]:
        before_s = now_s()
        samples = self._samples()
        time_s = (before_s + now_s()) / 2
        readings = []
        for sample in samples:
            key = self._key(sample)
            if key is not None and key in self._names:
                domain = self._names[key]
                readings.append(Reading(domain.name, time_s, sample.value * self._factor(key[1])))
                self._note_clock(domain, sample)
        self._note_throttling(samples)
        return readings

    def _factor(self, series: str) -> float:
        """From the unit of a series to W or J."""
        return {"query": self._options.scale, ENERGY_SERIES: 1e-3}.get(series, 1.0)

    def events(self) -> list[tuple[str, Mapping[str, Json]]]:
        found, self._events = self._events, []
        return found

    def _note_clock(self, domain: EnergyDomain, sample: Sample) -> None:
        """Note how far the exporter's clock is off, by a stamp that is new since the last read."""
        stamp_s, before_s = sample.stamp_unix_s, self._stamp_unix_s.get(domain.name)
        if stamp_s is None:
            return
        self._stamp_unix_s[domain.name] = stamp_s
        if before_s is None or stamp_s == before_s:  # it may be old by any time
            return
        offset_s = stamp_s - time.time()
        if abs(offset_s - self._clock_offset_s.get(domain.name, math.inf)) > CLOCK_CHANGE_S:
            self._clock_offset_s[domain.name] = offset_s
            detail: dict[str, Json] = {"domain": domain.name, "offset_s": offset_s}
            self._events.append(("sensor_clock", detail))

    def _note_throttling(self, samples: list[Sample]) -> None:
        if self._throttled:
            return
        asked = [s for s in samples if s.name in THROTTLE_SERIES and math.isfinite(s.value)]
        slowed = [s for s in asked if int(s.value) & SLOWED]
        if slowed:
            self._throttled = True
            devices = ", ".join(sorted(s.labels.get("gpu", "?") for s in slowed))
            detail: dict[str, Json] = {"devices": devices, "reasons": f"0x{int(slowed[0].value):x}"}
            self._events.append(("throttled", detail))
