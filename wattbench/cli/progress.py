"""What a person sees while runs go on: which one, how far, tokens/s, watts, joules per token."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from wattbench.core.run import Json
from wattbench.runner import LiveState
from wattbench.workload import Workload

LARGE_BYTES = 16 * 1024**2
"""Files from this size on have a bar while they are read [B]."""
RATE_SPAN_S = 3.0
"""Tokens/s on the way is the mean over this long [s]."""
PHASES = {
    "starting": "starting",
    "idle_start": "idle",
    "idle_end": "idle",
    "warmup_start": "warming up",
    "measure_start": "measuring",
    "measure_end": "finishing",
    "drain_end": "finishing",
}


class ProgressView:
    """A few live lines; silent when there is no console.

    Args:
        console: Where to draw, None for nowhere.
        workload: For the expected length of a run.
        run_count: How many runs there will be.
    """

    def __init__(self, console: Console | None, workload: Workload, run_count: int) -> None:
        self._console = console
        self._run_count = run_count
        self._run_number = 0
        self._expected_s = self._guess_s(workload)
        self._lengths_s: list[float] = []

    @staticmethod
    def _guess_s(workload: Workload) -> float | None:
        if workload.measure.duration_s is None:
            return None
        return workload.idle_s + 2 * workload.warmup.duration_s + workload.measure.duration_s + 1

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Shown while the engine starts."""
        assert self._console is not None
        with self._console.status("starting the engine (the first time it may take longer)"):
            yield

    @contextmanager
    def running(self, load: Mapping[str, Json], repeat: int, live: LiveState) -> Iterator[None]:
        """Shown while one run goes on."""
        self._run_number += 1
        if self._console is None:
            yield
            return
        started_s = time.monotonic()
        marks: deque[tuple[float, int]] = deque()
        point = ", ".join(f"{key} {value}" for key, value in load.items())

        def draw() -> RenderableType:
            now_s = time.monotonic()
            marks.append((now_s, live.tokens))
            while now_s - marks[0][0] > RATE_SPAN_S:
                marks.popleft()
            return self._lines(f"{point}, repeat {repeat + 1}", now_s - started_s, marks, live)

        with Live(get_renderable=draw, console=self._console, refresh_per_second=4, transient=True):
            yield
        self._lengths_s.append(time.monotonic() - started_s)

    def _lines(
        self, title: str, elapsed_s: float, marks: deque[tuple[float, int]], live: LiveState
    ) -> RenderableType:
        span_s = marks[-1][0] - marks[0][0]
        rate = (marks[-1][1] - marks[0][1]) / span_s if span_s > 0.5 else None
        row = Table.grid(padding=(0, 2))
        row.add_row(
            Text(f"run {self._run_number}/{self._run_count}", style="bold"),
            title,
            PHASES.get(live.phase, live.phase),
            f"{live.completed} answers" + (f", {live.failed} failed" if live.failed else ""),
            f"{rate:.0f} tok/s" if rate is not None else "",
            f"{live.power_watts:.1f} W" if live.power_watts is not None else "",
            f"{live.power_watts / rate:.3g} J/token" if live.power_watts and rate else "",
        )
        return Group(row, self._bar(elapsed_s))

    def _bar(self, elapsed_s: float) -> RenderableType:
        """Share of all runs done, and the time left."""
        expected_s = self._expected_s
        if self._lengths_s:
            expected_s = sum(self._lengths_s) / len(self._lengths_s)
        if expected_s is None:
            return Text(f"{elapsed_s:.0f} s")
        done = self._run_number - 1 + min(1.0, elapsed_s / expected_s)
        left_s = max(0.0, (self._run_count - done) * expected_s)
        row = Table.grid(padding=(0, 2))
        row.add_row(
            ProgressBar(total=self._run_count, completed=done, width=40),
            f"about {left_s:.0f} s left",
        )
        return row


@contextmanager
def reading_bar() -> Iterator[Callable[[Path, int], None]]:
    """A bar for each large file that is read, on a terminal; what is to be told how far it is."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _path, _read_bytes: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[Path, TaskID] = {}

        def watch(path: Path, read_bytes: int) -> None:
            size_bytes = path.stat().st_size
            if size_bytes < LARGE_BYTES:
                return
            if path not in tasks:
                tasks[path] = bar.add_task(f"reading {path.name}", total=size_bytes)
            # A file is read more than once, and a packed one has more text than bytes.
            bar.update(tasks[path], completed=min(read_bytes, size_bytes))

        yield watch
