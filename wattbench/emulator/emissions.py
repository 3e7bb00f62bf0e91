"""When an emulated server wrote each event: the truth that a client's stamps are held against."""

from __future__ import annotations

import asyncio
from array import array
from typing import Any

import numpy as np

from wattbench.emulator.device import Stream

MAX_REQUESTS = 100_000
"""Requests remembered; the oldest are dropped."""
MAX_STAMPS = 4_000_000
"""Stamps remembered in all (32 MB)."""


class Emissions:
    """Stamps of events by request, on the clock of the running loop."""

    def __init__(self) -> None:
        self._received_s: dict[int, float] = {}
        self._written_s: dict[int, array[float]] = {}
        self._lateness_s = array("d")
        self._behind = 0
        self._stamps = 0

    def begin(self, number: int, received_s: float) -> None:
        """A request whose headers arrived at ``received_s``."""
        self._received_s[number] = received_s
        self._written_s[number] = array("d")
        while len(self._written_s) > MAX_REQUESTS or self._stamps > MAX_STAMPS:
            oldest = next(iter(self._written_s))
            self._stamps -= len(self._written_s.pop(oldest))
            del self._received_s[oldest]

    def note(self, stream: Stream) -> None:
        """An event of a stream is written now."""
        now_s = asyncio.get_running_loop().time()
        written_s = self._written_s.get(stream.number)
        if written_s is not None:
            written_s.append(now_s)
            self._stamps += 1
        if stream.ready:
            self._behind += 1
        elif stream.last_token_s is not None and len(self._lateness_s) < MAX_STAMPS:
            self._lateness_s.append(now_s - stream.last_token_s)

    def received_s(self, number: int) -> float | None:
        """When a request arrived [s, loop clock]; None if it is not remembered."""
        return self._received_s.get(number)

    def written_s(self, number: int) -> array[float]:
        """When the events of a request were written [s, loop clock]."""
        return self._written_s.get(number, array("d"))

    def lateness(self) -> dict[str, Any]:
        """How late events were written after the machine had their last token [s].

        ``behind_count`` are events written when the machine was a token further already; they
        are later than a step and not among the quantiles.
        """
        late_s = np.frombuffer(self._lateness_s, np.float64)
        quantiles = {"p50_s": 0.5, "p99_s": 0.99}
        shown: dict[str, Any] = {
            name: float(np.quantile(late_s, level)) if len(late_s) else None
            for name, level in quantiles.items()
        }
        return shown | {"count": len(late_s), "behind_count": self._behind}
