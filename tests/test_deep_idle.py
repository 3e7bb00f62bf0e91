"""Net of deep idle: what the machine draws before the engine is there."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest
import sqlalchemy as sa
from emulation import emulated_run, varied_workload
from traces import domain

from wattbench.core.protocols import TraceSink
from wattbench.core.run import Event
from wattbench.results import document, evaluate
from wattbench.runner import deep_idle, run_async

DEEP_WATTS = 60.0


class SteadyMeter:
    """A counter of a machine that draws 60 W, read every 0.1 s."""

    async def start(self, sink: TraceSink) -> None:
        """Begin to read."""
        self._sink = sink
        sink.declare(domain("energy_counter"))
        self._read()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            self._read()

    def _read(self) -> None:
        now_s = self._sink.now_s()
        self._sink.sample("gpu:0", [now_s], [DEEP_WATTS * now_s])

    async def stop(self) -> None:
        """End with a last reading."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await asyncio.sleep(0.1)
        self._read()


def test_net_of_deep_idle_is_gross_minus_the_empty_machine(engine: sa.Engine) -> None:
    """The raw samples of the baseline travel with the run, and the rest follows from them."""
    detail = run_async(deep_idle([SteadyMeter()], 3.0), virtual=True)
    raw, _ = emulated_run(engine, varied_workload(), concurrency=4, seed=1)
    event = Event(kind="deep_idle", time_s=0.0, detail=detail)
    headline = document(evaluate([replace(raw, events=(*raw.events, event))]), "")["points"][0]
    shown = headline["energy"]["headline"]
    duration_s = headline["window"]["duration_s"]
    expected = shown["gross_joules"]["value"] - DEEP_WATTS * duration_s
    assert shown["net_deep_idle_joules"]["value"] == pytest.approx(expected, rel=1e-6)
    assert shown["net_deep_idle_joules"]["value"] > shown["net_loaded_idle_joules"]["value"]


def test_without_a_baseline_there_is_a_reason(engine: sa.Engine) -> None:
    """Not asked for: unknown, never 0."""
    raw, _ = emulated_run(engine, varied_workload(), concurrency=1, seed=1)
    shown = document(evaluate([raw]), "")["points"][0]["energy"]["headline"]
    assert shown["net_deep_idle_joules"] == {"value": None, "reason": "no_deep_idle"}
