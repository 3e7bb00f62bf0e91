"""Sources that are read again and again, in a thread, on the run clock.

What a sensor is like is found out first: how long its values stand is its update period, and it is
then read five times per update, so that ticks of a counter can be told to a tenth of it. A sensor
that is new at every read is read twenty times a second. The end waits for one more update, so that
the window is bracketed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from wattbench.core.energy import EnergyDomain
from wattbench.core.errors import MeterError, WattbenchError
from wattbench.core.protocols import TraceSink
from wattbench.core.run import Json

PROBE_S, PROBE_PERIOD_S = 1.3, 0.01
"""How long, and how often, a source is read to find its update period [s]."""
READS_PER_UPDATE = 5
FAST_S = 0.02
"""Update period below which every read is new, and need not be followed [s]."""
FAST_PERIOD_S, SLOWEST_PERIOD_S = 0.05, 1.0
BUSY_FRACTION = 0.05
"""Share of its time that a thread may spend in reading."""
STATE_PERIOD_S = 1.0
"""How often a source is asked what has changed beside its values [s]."""
GRACE_UPDATES, GRACE_S = 20, (2.0, 6.0)
"""A domain that does not report at the end is waited for so many updates, within these [s]."""

Clock = Callable[[], float]


class Reading(NamedTuple):
    """One reading of one domain.

    Attributes:
        domain: Name of the domain.
        time_s: When it was taken [s, the clock that was handed to ``read``].
        value: Power [W] or counter [J], as the domain's quantity says; NaN: no value.
    """

    domain: str
    time_s: float
    value: float


class Source(ABC):
    """Something that is open and can be read.

    Attributes:
        domains: What it measures.
        updates_together: Whether all its values are new at the same instants.
    """

    domains: Sequence[EnergyDomain]
    updates_together: bool = False

    @abstractmethod
    def read(self, now_s: Clock) -> Iterable[Reading]:
        """Read everything once.

        A domain that is left out has no value this time; one that its sensor stamps has nothing
        new, and a NaN where it could not be read.

        Raises:
            MeterError: If nothing can be read.
        """

    def events(self) -> Iterable[tuple[str, Mapping[str, Json]]]:
        """What was noticed since the last call, as kinds and details of events."""
        return ()

    def changes(self) -> Iterable[tuple[str, Mapping[str, Json]]]:
        """The same of what must be asked for, such as processes: called once a second."""
        return ()

    def close(self) -> None:  # noqa: B027 - most sources hold nothing open
        """Let go of it."""


def bracketed(now_s: Clock, domain: str, read: Callable[[], float]) -> Reading:
    """A reading stamped at the middle of the call that took it."""
    before_s = now_s()
    value = read()
    return Reading(domain, (before_s + now_s()) / 2, value)


class PolledMeter(ABC):
    """A meter that polls one source.

    Args:
        period_s: Time between two reads [s]; None: found out.
    """

    def __init__(self, period_s: float | None = None) -> None:
        self._wanted_period_s = period_s
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._last_s: dict[str, float] = {}
        self._last_good_s: dict[str, float] = {}
        self._above_zero: set[str] = set()
        self._failing_since_s: float | None = None
        self._failure = ""
        self._broken: WattbenchError | None = None
        self._reads, self._busy_s = 0, 0.0
        self._state_due_s = 0.0

    @staticmethod
    def availability() -> str | None:
        """Always worth a try: a recording needs no library, and opening says what is missing."""
        return None

    @abstractmethod
    def open_source(self) -> Source:
        """Open what is to be read.

        Raises:
            MeterError: If it is not there or must not be read, with the way out.
        """

    async def start(self, sink: TraceSink) -> None:
        """Open the source, find its update periods, then read.

        Raises:
            MeterError: If the source cannot be opened or read.
        """
        self._sink = sink
        self._source = await asyncio.to_thread(self.open_source)
        try:
            periods_s = await asyncio.to_thread(_update_periods_s, self._source, sink.now_s)
            self._declare(periods_s)
            await asyncio.to_thread(self._read_first)
            if self._broken is not None or self._failing_since_s is not None:
                raise self._broken or MeterError(self._failure)
        except BaseException:
            self._source.close()
            raise
        name = f"meter-{type(self).__name__}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Read until every domain has reported once more, then end.

        Raises:
            MeterError: If the source stopped answering.
        """
        loop = asyncio.get_running_loop()
        update_s = READS_PER_UPDATE * self._period_s
        deadline_s = loop.time() + min(max(GRACE_UPDATES * update_s, GRACE_S[0]), GRACE_S[1])
        # A value that is new since now: one update later, so that the end is bracketed.
        stop_s = self._sink.now_s() + update_s
        while loop.time() < deadline_s and self._waiting_for(stop_s):
            await asyncio.sleep(self._period_s)
        self._stopping.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        self._source.close()
        self._sink.note("meter_overhead", reads=self._reads, cpu_s=self._busy_s)
        if self._broken is not None:
            raise self._broken
        if self._failing_since_s is not None:
            raise MeterError(f"{self._failure}, since {self._failing_since_s:.1f} s of the run")

    def _declare(self, periods_s: Mapping[str, float | None]) -> None:
        known = [found for found in periods_s.values() if found is not None]
        shortest_s = min(known, default=PROBE_S)
        followed_s = FAST_PERIOD_S if shortest_s < FAST_S else shortest_s / READS_PER_UPDATE
        self._period_s = self._wanted_period_s or min(followed_s, SLOWEST_PERIOD_S)
        for domain in self._source.domains:
            self._sink.declare(replace(domain, update_period_s=periods_s[domain.name]))

    def _waiting_for(self, since_s: float) -> bool:
        """Whether a domain that still could report has not done so since."""
        if self._failing_since_s is not None or self._broken is not None:
            return False
        return any(self._last_good_s.get(d.name, 0.0) < since_s for d in self._source.domains)

    def _read_first(self) -> None:
        """Read until every domain has a sample; one that its sensor stamps may need an update."""
        end_s = self._sink.now_s() + PROBE_S
        self._read_once()
        while len(self._last_s) < len(self._source.domains) and self._sink.now_s() < end_s:
            if self._broken is not None or self._failing_since_s is not None:
                return
            time.sleep(self._period_s)
            self._read_once()

    def _run(self) -> None:
        due_s = self._sink.now_s()
        while self._broken is None:
            cost_s = self._busy_s / max(1, self._reads)
            due_s = max(due_s + max(self._period_s, cost_s / BUSY_FRACTION), self._sink.now_s())
            if self._stopping.wait(max(0.0, due_s - self._sink.now_s())):
                return
            self._read_once()

    def _read_once(self) -> None:
        """Read the source and hand on what it says; a domain without a value has a failed read."""
        before_s, cpu_s = self._sink.now_s(), time.thread_time()
        try:
            found: dict[str, list[Reading]] = {}
            for reading in self._source.read(self._sink.now_s):
                found.setdefault(reading.domain, []).append(reading)
            self._failing_since_s = None
            self._hand_on(found, (before_s + self._sink.now_s()) / 2)
            self._note(self._source.events())
            if self._sink.now_s() >= self._state_due_s:
                self._state_due_s = self._sink.now_s() + STATE_PERIOD_S
                self._note(self._source.changes())
        except MeterError as error:
            if self._failing_since_s is None:
                self._failing_since_s, self._failure = before_s, str(error)
        except WattbenchError as error:
            self._broken = error
        except Exception as error:  # a plug-in may raise anything; its thread must not end unsaid
            self._broken = MeterError(f"{type(error).__name__}: {error}")
        self._reads += 1
        self._busy_s += time.thread_time() - cpu_s

    def _note(self, events: Iterable[tuple[str, Mapping[str, Json]]]) -> None:
        for kind, detail in events:
            self._sink.note(kind, **detail)

    def _hand_on(self, found: Mapping[str, Sequence[Reading]], middle_s: float) -> None:
        for domain in self._source.domains:
            last_s = self._last_s.get(domain.name, -np.inf)
            readings = found.get(domain.name, [])
            if domain.stamped_by == "sensor":  # a stamp that was seen before was read before
                readings = [reading for reading in readings if reading.time_s > last_s]
            elif not readings:
                readings = [Reading(domain.name, middle_s, np.nan)]
            if not readings:
                continue
            times_s = np.maximum.accumulate([last_s, *(reading.time_s for reading in readings)])[1:]
            values = np.array([reading.value for reading in readings])
            self._sink.sample(domain.name, times_s, values)
            self._last_s[domain.name] = float(times_s[-1])
            # Neither missing, nor a failed read that came as 0; a counter may stand at 0.
            last = values[-1]
            if last > 0 or (last == 0 and domain.name not in self._above_zero):
                self._last_good_s[domain.name] = float(times_s[-1])
            if last > 0 or domain.quantity == "power":
                self._above_zero.add(domain.name)


def _update_periods_s(source: Source, now_s: Clock) -> dict[str, float | None]:
    """Update period of each domain: as it is known, else the median time between two changes."""
    periods_s = {domain.name: domain.update_period_s for domain in source.domains}
    if None not in periods_s.values():
        return periods_s
    changes: dict[str, list[float]] = {}
    last: dict[str, float] = {}
    end_s = now_s() + PROBE_S
    while now_s() < end_s:
        with suppress(MeterError):  # one bad read is no reason to give up; the first real one is
            for domain, time_s, value in source.read(now_s):
                if last.get(domain, value) != value:
                    changes.setdefault(domain, []).append(time_s)
                last[domain] = value
        time.sleep(PROBE_PERIOD_S)
    gaps_s = {name: np.diff(stamps) for name, stamps in changes.items() if len(stamps) > 1}
    if gaps_s and source.updates_together:
        gaps_s = dict.fromkeys(periods_s, np.concatenate(list(gaps_s.values())))
    found = {name: float(np.median(gaps)) for name, gaps in gaps_s.items()}
    return {name: found.get(name) if known is None else known for name, known in periods_s.items()}
