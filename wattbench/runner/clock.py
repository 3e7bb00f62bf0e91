"""The one clock of a run, in real or in virtual time."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from wattbench.core.run import Event, Json

T = TypeVar("T")


class RunClock:
    """Seconds since the start of a run, on the event loop's monotonic clock.

    In real time that is ``time.monotonic`` (CLOCK_MONOTONIC on Linux, one origin for all
    processes of the machine), so meters in other threads or processes agree with it.

    Args:
        loop: The running loop.
        virtual: Whether its time is simulated; wall time then advances with it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, virtual: bool) -> None:
        self.loop_time = loop.time
        self.virtual = virtual
        self.origin_s = loop.time()
        self.started_unix_s = time.time()

    def now_s(self) -> float:
        """Time since the start of the run [s]."""
        return self.loop_time() - self.origin_s

    def anchor_s(self) -> tuple[float, float, float]:
        """A pair of clocks read together: run clock [s], wall clock [Unix s], bracket [s].

        The bracket is the time between the two reads of the run clock around the wall clock's.
        """
        before_s = self.now_s()
        unix_s = self.started_unix_s + before_s if self.virtual else time.time()
        after_s = self.now_s()
        return (before_s + after_s) / 2, unix_s, after_s - before_s

    def anchor(self) -> Event:
        """The pair of clocks as an event of the run."""
        time_s, unix_s, bracket_s = self.anchor_s()
        detail: dict[str, Json] = {"unix_s": unix_s, "bracket_s": bracket_s}
        return Event(kind="clock_anchor", time_s=time_s, detail=detail)


FILES_EVERY = 64


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for nothing: when no file is ready, time jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._jumps = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        if timeout <= 0:
            return []
        self._jumps += 1
        # The only files are the loop's own wake-ups (Ctrl-C); asking for them each time is slow.
        ready = super().select(0) if self._jumps % FILES_EVERY == 0 else []
        if not ready:
            self.now_s += timeout
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


def run_async(coroutine: Coroutine[Any, Any, T], *, virtual: bool) -> T:
    """Run a coroutine to its end, in real or in virtual time; Ctrl-C cancels it.

    In virtual time waiting costs nothing and, as long as only timers wake anyone, everything
    happens in the same order every time.
    """
    factory = _VirtualLoop if virtual else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(coroutine)
