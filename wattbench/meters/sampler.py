"""Reading a sensor at a steady rate in a thread of its own, stamped on the run clock."""

from __future__ import annotations

import threading
from collections.abc import Callable

from wattbench.core.errors import WattbenchError
from wattbench.core.protocols import TraceSink


class Sampler:
    """Calls ``read`` every ``period_s`` and hands each value to the sink with its stamp.

    The stamp is the middle of the read. Due times are absolute, so a slow read delays one sample
    and not all that follow. A failing read ends the sampling; ``stop`` tells.

    Args:
        domain: Name of the declared domain.
        read: Returns the power [W] or the counter [J]; raises MeterError if it cannot.
        period_s: Time between two reads [s].
    """

    def __init__(self, domain: str, read: Callable[[], float], period_s: float) -> None:
        self._domain = domain
        self._read = read
        self._period_s = period_s
        self._stopping = threading.Event()
        self._error: WattbenchError | None = None
        self._thread: threading.Thread | None = None

    def start(self, sink: TraceSink) -> None:
        """Take a first sample, then go on in the thread.

        Raises:
            MeterError: If the first read fails.
        """
        self._sink = sink
        self._sample()
        self._thread = threading.Thread(target=self._run, name=f"meter-{self._domain}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take a last sample and end the thread.

        Raises:
            WattbenchError: If a read failed since ``start``, or its value could not be kept.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        if self._error is None:
            self._sample()
        else:
            raise self._error

    def _run(self) -> None:
        due_s = self._sink.now_s()
        while True:
            due_s = max(due_s + self._period_s, self._sink.now_s())
            if self._stopping.wait(due_s - self._sink.now_s()):
                return
            try:
                self._sample()
            except WattbenchError as error:
                self._error = error
                return

    def _sample(self) -> None:
        before_s = self._sink.now_s()
        value = self._read()
        after_s = self._sink.now_s()
        self._sink.sample(self._domain, [(before_s + after_s) / 2], [value])
