"""A device whose timing and energy are known: a roofline with continuous batching.

The device schedules like a serving engine. Each step computes one token for every decoding
request and, in the room left by ``prefill_chunk_tokens``, a chunk of the oldest waiting prompts.
A request is admitted when the batch has a slot and its whole context fits the KV memory. Its
first token comes with the end of the step that finishes its prompt.

Power is constant within a step, so the energy between any two instants is exact. The timeline
and the log of emissions are the truth that measurements are held against; nothing here imports
the code that measures.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wattbench.hardware import Roofline


class PowerTimeline:
    """Exact cumulative energy of piecewise constant power; idle wherever nothing was added."""

    def __init__(self, start_s: float, idle_watts: float) -> None:
        self.idle_watts = idle_watts
        self._edge_s = array("d", [start_s])
        self._energy_joules = array("d", [0.0])

    def add(self, start_s: float, end_s: float, power_watts: float) -> None:
        """Append a busy stretch; ``start_s`` [s] must not lie before the last one's end."""
        last_s, last_joules = self._edge_s[-1], self._energy_joules[-1]
        if start_s > last_s:
            last_joules += self.idle_watts * (start_s - last_s)
            self._edge_s.append(start_s)
            self._energy_joules.append(last_joules)
        self._edge_s.append(end_s)
        self._energy_joules.append(last_joules + power_watts * (end_s - start_s))

    def energy_joules(self, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Energy from the start to each instant [J]; ``time_s`` has shape (n,) [s]."""
        first = max(0, int(np.searchsorted(self._edge_s, time_s[0])) - 1) if len(time_s) else 0
        edge_s, energy = np.array(self._edge_s[first:]), np.array(self._energy_joules[first:])
        inside = np.interp(time_s, edge_s, energy)
        return np.asarray(inside + self.idle_watts * np.maximum(0.0, time_s - edge_s[-1]))

    def steps(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Edges [s], shape (n + 1,), and the constant power between them [W], shape (n,)."""
        edge_s, energy = np.array(self._edge_s), np.array(self._energy_joules)
        return edge_s, np.diff(energy) / np.diff(edge_s)


@dataclass(slots=True, kw_only=True)
class Stream:
    """One request on the device: its progress, and tokens ready for whoever reads it.

    A reader takes from ``ready``; when that is 0 it sets ``waiter`` to a future and awaits it.
    """

    input_tokens: int
    output_tokens: int
    prefilled_tokens: int = 0
    emitted_tokens: int = 0
    ready: int = 0
    cancelled: bool = False
    waiter: asyncio.Future[None] | None = None

    @property
    def reserved_tokens(self) -> int:
        """KV memory held for the request [tokens]."""
        return self.input_tokens + self.output_tokens


class EmulatedDevice:
    """Continuous batching over a roofline, on the clock of the running event loop."""

    def __init__(self, roofline: Roofline, *, max_batch: int, prefill_chunk_tokens: int) -> None:
        self.roofline = roofline
        self.max_batch = max_batch
        self.prefill_chunk_tokens = prefill_chunk_tokens
        self.emission_s = array("d")
        """When each output token was emitted [s, loop clock]."""
        self._waiting: deque[Stream] = deque()
        self._prefilling: deque[Stream] = deque()
        self._decoding: list[Stream] = []
        self._context_tokens = 0
        self._reserved_tokens = 0
        self._any_cancelled = False
        self._timeline: PowerTimeline | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next: asyncio.Handle | None = None

    @property
    def timeline(self) -> PowerTimeline:
        """Power from the start of the device on."""
        assert self._timeline is not None, "the device is not started"
        return self._timeline

    def start(self) -> None:
        """Switch the device on, inside a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._timeline = PowerTimeline(self._loop.time(), self.roofline.idle_watts)

    def stop(self) -> None:
        """Switch the device off; requests under way stay unanswered."""
        if self._next is not None:
            self._next.cancel()

    def submit(self, input_tokens: int, output_tokens: int) -> Stream:
        """Queue a request.

        Args:
            input_tokens: Prompt length, at least 1 [tokens].
            output_tokens: Answer length, at least 1 [tokens].

        Raises:
            ValueError: If its context can never fit the KV memory.
        """
        stream = Stream(input_tokens=max(1, input_tokens), output_tokens=max(1, output_tokens))
        if stream.reserved_tokens > self.roofline.kv_capacity_tokens:
            raise ValueError(
                f"{stream.reserved_tokens} tokens of context exceed the KV memory of "
                f"{self.roofline.kv_capacity_tokens} tokens"
            )
        self._waiting.append(stream)
        if self._next is None:
            assert self._loop is not None, "the device is not started"
            self._next = self._loop.call_soon(self._begin_step, self._loop.time())
        return stream

    def cancel(self, stream: Stream) -> None:
        """Forget a request; it leaves the batch before the next step."""
        if stream.emitted_tokens < stream.output_tokens:
            stream.cancelled = self._any_cancelled = True

    def _begin_step(self, start_s: float) -> None:
        """Compute the next step. It begins at ``start_s`` [s] though the call may be late.

        The ends of steps follow this schedule, so late wake-ups in real time add no drift.
        """
        self._next = None
        self._drop_cancelled()
        self._admit()
        prefill = self._plan_prefill()
        if prefill or self._decoding:
            end_s = start_s + self._book_step(start_s, prefill)
            assert self._loop is not None
            self._next = self._loop.call_at(end_s, self._end_step, end_s, prefill)

    def _end_step(self, end_s: float, prefill: list[tuple[Stream, int]]) -> None:
        self._finish_step(end_s, prefill)
        self._begin_step(end_s)

    def _drop_cancelled(self) -> None:
        if not self._any_cancelled:
            return
        self._any_cancelled = False
        for stream in (*self._prefilling, *self._decoding):
            self._reserved_tokens -= stream.reserved_tokens * stream.cancelled
        for stream in self._decoding:
            held = stream.input_tokens + stream.emitted_tokens
            self._context_tokens -= held * stream.cancelled
        self._waiting = deque(s for s in self._waiting if not s.cancelled)
        self._prefilling = deque(s for s in self._prefilling if not s.cancelled)
        self._decoding = [s for s in self._decoding if not s.cancelled]

    def _admit(self) -> None:
        """First come, first served, while a slot and KV memory are free."""
        while self._waiting and len(self._decoding) + len(self._prefilling) < self.max_batch:
            needed = self._waiting[0].reserved_tokens
            if self._reserved_tokens + needed > self.roofline.kv_capacity_tokens:
                return
            self._reserved_tokens += needed
            self._prefilling.append(self._waiting.popleft())

    def _plan_prefill(self) -> list[tuple[Stream, int]]:
        """Chunks of prompts for the next step, oldest request first."""
        room = max(1, self.prefill_chunk_tokens - len(self._decoding))
        plan = []
        for stream in self._prefilling:
            chunk = min(room, stream.input_tokens - stream.prefilled_tokens)
            plan.append((stream, chunk))
            room -= chunk
            if room <= 0:
                break
        return plan

    def _book_step(self, start_s: float, prefill: list[tuple[Stream, int]]) -> float:
        """Enter the step's power into the timeline and return its duration [s]."""
        tokens = len(self._decoding)
        attended = cached = self._context_tokens
        for stream, chunk in prefill:
            done = stream.prefilled_tokens
            tokens += chunk
            attended += chunk * done + chunk * (chunk + 1) // 2
            cached += done
        cost = self.roofline.step(tokens, attended, cached)
        self.timeline.add(start_s, start_s + cost.duration_s, cost.power_watts)
        return cost.duration_s

    def _finish_step(self, end_s: float, prefill: list[tuple[Stream, int]]) -> None:
        emitting = self._decoding
        for stream, chunk in prefill:
            stream.prefilled_tokens += chunk
            if stream.prefilled_tokens == stream.input_tokens:
                self._prefilling.remove(stream)
                self._context_tokens += stream.input_tokens
                emitting.append(stream)
        self._context_tokens += len(emitting)
        self.emission_s.extend([end_s] * len(emitting))
        finished = False
        for stream in emitting:
            stream.emitted_tokens += 1
            stream.ready += 1
            waiter = stream.waiter
            if waiter is not None:
                stream.waiter = None
                if not waiter.done():
                    waiter.set_result(None)
            if stream.emitted_tokens == stream.output_tokens:
                finished = True
        if finished:
            self._release_finished()

    def _release_finished(self) -> None:
        for stream in self._decoding:
            if stream.emitted_tokens == stream.output_tokens:
                self._reserved_tokens -= stream.reserved_tokens
                self._context_tokens -= stream.reserved_tokens
        self._decoding = [s for s in self._decoding if s.emitted_tokens < s.output_tokens]
