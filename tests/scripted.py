"""A small engine that answers by a script, in virtual time: a real backend behind the real seam."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import sqlalchemy as sa

from wattbench.core.errors import BackendError
from wattbench.core.load import InferenceRequest, TokenChunk, Usage
from wattbench.core.run import EngineInfo, Mode, RawRun, RunRecord
from wattbench.runner import LiveState, RunPlan, execute, run_async
from wattbench.store import StoreWriter, load_run
from wattbench.workload import Workload

STEP_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """What happens to one request.

    Attributes:
        tokens: Length of its answer.
        claimed_tokens: The count that the engine tells.
        input_tokens: The length of the prompt that the engine tells.
        stall_s: Silence before the answer [s].
        pause_s: Silence in the middle of the answer [s].
        fails: Whether there is no answer.
    """

    tokens: int = 10
    claimed_tokens: int | None = 10
    input_tokens: int = 5
    stall_s: float = 0.0
    pause_s: float = 0.0
    fails: bool = False


class ScriptedBackend:
    """Asks the script what to do with each request, given its number and the time [s]."""

    def __init__(self, script: Callable[[int, float], Play]) -> None:
        self._script = script
        self.served = 0

    async def open(self) -> EngineInfo:
        """Say who it is."""
        return EngineInfo(model="script", engine="script", tokens_source="usage", mode=Mode())

    async def generate(self, request: InferenceRequest) -> AsyncIterator[TokenChunk]:
        """Play the request's part of the script."""
        self.served += 1
        play = self._script(self.served, asyncio.get_running_loop().time())
        if play.fails:
            raise BackendError("the script says so, api_key=sEcReT42")
        await asyncio.sleep(play.stall_s)
        for index in range(play.tokens):
            await asyncio.sleep(STEP_S + play.pause_s * (index == play.tokens // 2))
            yield TokenChunk(tokens=None, text=" word")
        usage = Usage(
            input_tokens=play.input_tokens,
            output_tokens=play.claimed_tokens,
            finish_reason="length",
        )
        yield TokenChunk(tokens=0, usage=usage)

    async def close(self) -> None:
        """Nothing to close."""


def scripted_run(
    engine: sa.Engine,
    workload: Workload,
    script: Callable[[int, float], Play],
    *,
    concurrency: int | None = 2,
    rate_per_s: float | None = None,
    tag: str | None = None,
) -> tuple[RawRun, float]:
    """Run a script without a meter; what was recorded, and how long it took [virtual s]."""
    backend = ScriptedBackend(script)
    writer = StoreWriter(engine)

    async def carry_out() -> float:
        record = RunRecord(
            run_id="run",
            batch_id="run",
            point_index=0,
            repeat_index=0,
            started_unix_s=0.0,
            virtual_time=True,
            workload=workload.model_dump(mode="json"),
            backend={"name": "script"},
            engine=await backend.open(),
            hardware={},
            meters=(),
            operating_point={},
            seed=1,
            environment={},
            tag=tag,
        )
        plan = RunPlan(
            record=record, workload=workload, concurrency=concurrency, rate_per_s=rate_per_s
        )
        await execute(plan, backend, [], writer, LiveState(), virtual=True)
        return asyncio.get_running_loop().time()

    try:
        elapsed_s = run_async(carry_out(), virtual=True)
    finally:
        writer.close()
    return load_run(engine, "run"), elapsed_s
