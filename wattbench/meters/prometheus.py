"""Power and energy from Prometheus: an exporter's page, or a query to a Prometheus server.

Without ``query`` the URL is read as a page of the text format, and the two DCGM series are looked
for: ``DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION`` [mJ] and ``DCGM_FI_DEV_POWER_USAGE`` [W], one device
per ``gpu`` label. With ``query`` the URL is a Prometheus server, and every series of the result is
a device.

The page is read in a thread of its own. Its update period is found out first, by reading fast for
a moment; then it is read five times per update. A reading is stamped at the middle of its round
trip. Prior on both readings: gain within ± 5 %, offset within ± 5 W, uniform.

Source: NVIDIA's statements of ± 5 % and ± 5 W for board power (NVML API reference, 2025).
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import numpy as np

from wattbench.core.energy import EnergyDomain, Kind, Quantity
from wattbench.core.errors import MeterError, WattbenchError
from wattbench.core.protocols import TraceSink
from wattbench.meters.http_page import PageReader
from wattbench.plugins import PluginContext, option

ENERGY_SERIES = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
POWER_SERIES = "DCGM_FI_DEV_POWER_USAGE"
THROTTLE_SERIES = "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS"
SERIES = (ENERGY_SERIES, POWER_SERIES, THROTTLE_SERIES)
SLOWED = 0x4 | 0x8 | 0x20 | 0x40 | 0x80
"""NVML's bits for power cap, hardware slowdown, thermal and power brake; idle clocks are not."""
PROBE_S, PROBE_PERIOD_S = 1.3, 0.01
"""How long, and how often, the page is read to find its update period [s]."""
READS_PER_UPDATE = 5
CLOCK_CHANGE_S = 0.2
"""A sensor's clock is noted when it is off by this much more than before [s]."""
GRACE_S = 6.0
"""A device that does not report at the end is waited for this long [s]."""
_LINE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+(-?\d+))?\s*$")
_LABEL = re.compile(r'([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusOptions:
    """Options of ``--meter prometheus``."""

    url: str = option("http://127.0.0.1:9400/metrics", "an exporter's page, or with query a server")
    query: str | None = option(
        None, "PromQL that gives watts or joules, in quotes if it has commas"
    )
    quantity: Literal["power", "energy"] = option("power", "what the query gives: W, or J so far")
    scale: float = option(1.0, "factor from the query's unit to W or J")
    boundary: Literal["chip", "board", "module", "package", "node", "rack", "facility"] = option(
        "board", "what the power includes"
    )
    period_s: float | None = option(None, "time between two reads [s]; none: found out")
    timeout_s: float = option(2.0, "longest wait for an answer [s]")
    gain_half_width_fraction: float = option(0.05, "prior on the gain: uniform within this")
    offset_half_width_watts: float = option(5.0, "prior on the offset: uniform within this [W]")

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname:
            raise ValueError(f"url={self.url!r} must begin with http:// or https://")
        if self.period_s is not None and not 0.005 <= self.period_s <= 60.0:
            raise ValueError(f"period_s={self.period_s:g} must be from 0.005 to 60 s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample of a page.

    Attributes:
        name: Metric name.
        labels: Its labels.
        value: Its value, in whatever unit the metric has.
        stamp_unix_s: The exporter's own stamp [Unix s], None if it gives none.
    """

    name: str
    labels: Mapping[str, str]
    value: float
    stamp_unix_s: float | None


def parse_page(text: str, wanted: tuple[str, ...] = ("",)) -> list[Sample]:
    """Samples of a page in Prometheus' text format; lines that are none are passed over.

    Args:
        text: The page.
        wanted: Beginnings of the names that are looked for; a page has hundreds of others.
    """
    samples = []
    for line in text.splitlines():
        found = _LINE.match(line) if line.startswith(wanted) else None
        if found is None:
            continue
        name, labels, value, stamp = found.groups()
        try:
            number = float(value)
        except ValueError:
            continue
        samples.append(
            Sample(
                name=name,
                labels={k: re.sub(r"\\(.)", r"\1", v) for k, v in _LABEL.findall(labels or "")},
                value=number,
                stamp_unix_s=None if stamp is None else int(stamp) / 1000,
            )
        )
    return samples


class PrometheusMeter:
    """Reads a DCGM exporter's page, or any query of a Prometheus server."""

    Options = PrometheusOptions

    def __init__(self, options: PrometheusOptions, context: PluginContext) -> None:
        self._options = options
        self._reader = PageReader(options.url, options.query, options.timeout_s)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._domains: dict[tuple[str, str], EnergyDomain] = {}
        self._last_good_s: dict[str, float] = {}
        self._failed_since_s: float | None = None
        self._last_error = ""
        self._broken: WattbenchError | None = None
        self._throttled = False
        self._clock_offset_s: dict[str, float] = {}

    @staticmethod
    def availability() -> str | None:
        """Always usable; whether the URL answers shows when it starts."""
        return None

    async def start(self, sink: TraceSink) -> None:
        """Find the devices and the update period, then read.

        Raises:
            MeterError: If the URL does not answer, or has no power and no energy in it.
        """
        self._sink = sink
        period_s = await asyncio.to_thread(self._prepare)
        self._period_s = self._options.period_s or period_s / READS_PER_UPDATE
        for domain in self._domains.values():
            sink.declare(domain)
        self._read_once()
        self._thread = threading.Thread(target=self._run, name="meter-prometheus", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Read until every device has reported once more, then end.

        Raises:
            MeterError: If the URL stopped answering.
        """
        deadline_s = asyncio.get_running_loop().time() + GRACE_S
        # A value that is new since now: one update later, so that the end is bracketed.
        stop_s = self._sink.now_s() + READS_PER_UPDATE * self._period_s
        while asyncio.get_running_loop().time() < deadline_s and self._waiting_for(stop_s):
            await asyncio.sleep(self._period_s)
        self._stopping.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        self._reader.close()
        if self._broken is not None:
            raise self._broken
        if self._failed_since_s is not None:
            raise MeterError(
                f"{self._reader.shown_url} has not answered since {self._failed_since_s:.1f} s of "
                f"the run: {self._last_error}"
            )

    def _waiting_for(self, since_s: float) -> bool:
        """Whether a device that still could report has not done so since."""
        if self._failed_since_s is not None or self._broken is not None:
            return False
        return any(self._last_good_s.get(d.name, 0.0) < since_s for d in self._domains.values())

    def _prepare(self) -> float:
        """Declare the domains from a first page; the update period of the page [s]."""
        for sample in self._reader_samples():
            if (key := self._key(sample)) is not None:
                self._domains[key] = self._domain(key, sample, update_period_s=None)
        if not self._domains:
            raise MeterError(
                f"{self._reader.shown_url} answers, but has neither {ENERGY_SERIES} nor "
                f"{POWER_SERIES}"
                if self._options.query is None
                else f"the query {self._options.query!r} of {self._reader.shown_url} gives nothing"
            )
        update_period_s = self._update_period_s()
        self._domains = {
            key: self._domain(key, None, update_period_s, domain)
            for key, domain in self._domains.items()
        }
        return update_period_s or PROBE_S

    def _update_period_s(self) -> float | None:
        """Median time between two changes of a value, None if none changed twice."""
        changes: dict[tuple[str, str], list[float]] = {}
        last: dict[tuple[str, str], float] = {}
        end_s = time.monotonic() + PROBE_S
        while time.monotonic() < end_s:
            now_s = time.monotonic()
            for sample in self._reader_samples():
                key = self._key(sample)
                if key is not None and last.get(key, sample.value) != sample.value:
                    changes.setdefault(key, []).append(now_s)
                if key is not None:
                    last[key] = sample.value
            time.sleep(PROBE_PERIOD_S)
        gaps = [gap for stamps in changes.values() for gap in np.diff(stamps).tolist()]
        return float(np.median(gaps)) if gaps else None

    def _reader_samples(self) -> list[Sample]:
        """Samples of one read.

        Raises:
            MeterError: If the URL does not answer, or not with a page or a result.
        """
        if self._options.query is None:
            return parse_page(self._reader.text(), SERIES)
        return [
            Sample(
                name="query",
                labels=labels,
                value=value * self._options.scale,
                stamp_unix_s=None,
            )
            for labels, value in self._reader.query_result()
        ]

    def _key(self, sample: Sample) -> tuple[str, str] | None:
        """Device and series of a sample, None if it is neither power nor energy."""
        if self._options.query is not None:
            label = next(
                (
                    sample.labels[k]
                    for k in ("gpu", "device", "instance", "node")
                    if k in sample.labels
                ),
                None,
            )
            shown = label or ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            return shown or "0", "query"
        if sample.name not in (ENERGY_SERIES, POWER_SERIES):
            return None
        return sample.labels.get("gpu") or sample.labels.get("UUID") or "0", sample.name

    def _domain(
        self,
        key: tuple[str, str],
        sample: Sample | None,
        update_period_s: float | None,
        known: EnergyDomain | None = None,
    ) -> EnergyDomain:
        device, series = key
        counter = series == ENERGY_SERIES or (
            series == "query" and self._options.quantity == "energy"
        )
        quantity: Quantity = "energy_counter" if counter else "power"
        kind: Kind = "counter" if counter else "integrated"
        name = f"gpu:{device}" if series != "query" else device
        both = series == POWER_SERIES and (device, ENERGY_SERIES) in self._domains
        labels = sample.labels if sample else {}
        return EnergyDomain(
            name=f"{name}/power" if both else name,
            meter="prometheus",
            quantity=quantity,
            kind=kind,
            boundary=self._options.boundary,
            devices=known.devices if known else (labels.get("UUID") or name,),
            parent=name if both else None,
            method=f"{self._options.query or series} of {self._reader.shown_url}",
            update_period_s=update_period_s,
            gain_half_width_fraction=self._options.gain_half_width_fraction,
            offset_half_width_watts=self._options.offset_half_width_watts,
        )

    def _run(self) -> None:
        due_s = self._sink.now_s()
        while True:
            due_s = max(due_s + self._period_s, self._sink.now_s())
            if self._stopping.wait(max(0.0, due_s - self._sink.now_s())):
                return
            try:
                self._read_once()
            except WattbenchError as error:
                self._broken = error
                return

    def _read_once(self) -> None:
        """Read the page and hand on what it says; a device without a value gets a failed read."""
        before_s = self._sink.now_s()
        try:
            samples = self._reader_samples()
        except MeterError as error:
            if self._failed_since_s is None:
                self._failed_since_s, self._last_error = before_s, str(error)
            return
        self._failed_since_s = None
        time_s = (before_s + self._sink.now_s()) / 2
        found = {key: sample for sample in samples if (key := self._key(sample)) is not None}
        for key, domain in self._domains.items():
            sample = found.get(key)
            value = np.nan if sample is None else sample.value
            if key[1] == ENERGY_SERIES:
                value /= 1e3
            self._sink.sample(domain.name, [time_s], [value])
            if sample is not None:
                self._note_clock(domain, sample)
            if value > 0:  # neither missing nor a failed read that came as 0
                self._last_good_s[domain.name] = time_s
        self._note_throttling(samples)

    def _note_clock(self, domain: EnergyDomain, sample: Sample) -> None:
        if sample.stamp_unix_s is None:
            return
        offset_s = sample.stamp_unix_s - time.time()
        if abs(offset_s - self._clock_offset_s.get(domain.name, np.inf)) > CLOCK_CHANGE_S:
            self._clock_offset_s[domain.name] = offset_s
            self._sink.note("sensor_clock", domain=domain.name, offset_s=offset_s)

    def _note_throttling(self, samples: list[Sample]) -> None:
        slowed = [s for s in samples if s.name == THROTTLE_SERIES and int(s.value) & SLOWED]
        if slowed and not self._throttled:
            self._throttled = True
            devices = ", ".join(sorted(s.labels.get("gpu", "?") for s in slowed))
            self._sink.note("throttled", devices=devices, reasons=f"0x{int(slowed[0].value):x}")
