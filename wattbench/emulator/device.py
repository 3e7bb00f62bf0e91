"""A machine whose timing and energy are known: a roofline with continuous batching.

It schedules like a serving engine. Each step computes one token for every decoding request and,
in the room left by ``prefill_chunk_tokens``, a chunk of the oldest waiting prompts. A request is
admitted when the batch has a slot and its whole context fits the KV memory. Its first token comes
with the end of the step that finishes its prompt.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from wattbench.emulator.faults import Fault
from wattbench.emulator.timeline import Timeline
from wattbench.hardware import Roofline, StepCost


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSettings:
    """How the machine is run, and how its power departs from the roofline's.

    Attributes:
        max_batch: Most requests in one step.
        prefill_chunk_tokens: Most tokens computed in one step [tokens].
        ripple_fraction: Power swings by ± this within a step, as a square wave.
        ripple_period_s: Period of the swing [s].
        drift_fraction: A warm machine draws this much more than a cold one (leakage).
        drift_s: Time constant of warming up [s].
        noise_fraction: Standard deviation of a step's power.
    """

    max_batch: int = 256
    prefill_chunk_tokens: int = 2048
    ripple_fraction: float = 0.0
    ripple_period_s: float = 0.02
    drift_fraction: float = 0.0
    drift_s: float = 60.0
    noise_fraction: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no machine does."""
        if self.max_batch < 1 or self.prefill_chunk_tokens < 1:
            raise ValueError("max_batch and prefill_chunk_tokens must be at least 1")
        if self.ripple_period_s <= 1e-4 or self.drift_s <= 0:
            raise ValueError("ripple_period_s must be above 0.0001 s and drift_s above 0 s")
        for name in ("ripple_fraction", "drift_fraction", "noise_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name):g} must be from 0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillChunk:
    """A part of a prompt, when it was computed and what it cost above idle."""

    start_s: float
    end_s: float
    energy_joules: float


@dataclass(slots=True, kw_only=True)
class Stream:
    """One request on the machine: its progress, and tokens ready for whoever reads it.

    A reader takes from ``ready``; when that is 0 it sets ``waiter`` to a future and awaits it.
    """

    number: int
    input_tokens: int
    output_tokens: int
    arrived_s: float
    prefilled_tokens: int = 0
    emitted_tokens: int = 0
    first_token_s: float | None = None
    last_token_s: float | None = None
    prefill: list[PrefillChunk] = field(default_factory=list)
    ready: int = 0
    cancelled: bool = False
    waiter: asyncio.Future[None] | None = None

    @property
    def reserved_tokens(self) -> int:
        """KV memory held for the request [tokens]."""
        return self.input_tokens + self.output_tokens


class EmulatedMachine:
    """Continuous batching over a roofline, on the clock of the running event loop.

    Args:
        roofline: Its physics.
        settings: How it is run.
        seed: Seed of the noise of its power.
    """

    def __init__(self, roofline: Roofline, settings: MachineSettings, seed: int = 0) -> None:
        self.roofline = roofline
        self.settings = settings
        self.emission_s = array("d")
        """When each output token was emitted [s, loop clock]."""
        self.streams: list[Stream] = []
        """Every request that was admitted, in the order of admission."""
        self.first_arrival_s: float | None = None
        """When the first request came [s, loop clock], None before it."""
        self.throttle: Fault | None = None
        """A power limit that sets in some time after the first request."""
        self.waiting: deque[Stream] = deque()
        self._prefilling: deque[Stream] = deque()
        self._decoding: list[Stream] = []
        self._context_tokens = 0
        self._reserved_tokens = 0
        self._submitted = 0
        self._any_cancelled = False
        self._noise = np.random.default_rng((seed, 0x6E))
        self._timeline: Timeline | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next: asyncio.Handle | None = None

    @property
    def timeline(self) -> Timeline:
        """Power from the start of the machine on."""
        assert self._timeline is not None, "the machine is not started"
        return self._timeline

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._prefilling) + len(self._decoding)

    @property
    def kv_used_fraction(self) -> float:
        """Share of the KV memory that is reserved."""
        return self._reserved_tokens / self.roofline.kv_capacity_tokens

    def start(self) -> None:
        """Switch the machine on, inside a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._timeline = Timeline(self._loop.time(), self.roofline.idle_watts)
        self.started_s = self._loop.time()

    def stop(self) -> None:
        """Switch the machine off; requests under way stay unanswered."""
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
        assert self._loop is not None, "the machine is not started"
        stream = Stream(
            number=self._submitted,
            input_tokens=max(1, input_tokens),
            output_tokens=max(1, output_tokens),
            arrived_s=self._loop.time(),
        )
        if stream.reserved_tokens > self.roofline.kv_capacity_tokens:
            raise ValueError(
                f"{stream.reserved_tokens} tokens of context exceed the KV memory of "
                f"{self.roofline.kv_capacity_tokens} tokens"
            )
        self._submitted += 1
        if self.first_arrival_s is None:
            self.first_arrival_s = stream.arrived_s
        self.waiting.append(stream)
        if self._next is None:
            # Arrivals of one instant share their first step.
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
        self._drop_cancelled(start_s)
        self._admit()
        prefill = self._plan_prefill()
        if prefill or self._decoding:
            end_s = self._book_step(start_s, prefill)
            assert self._loop is not None
            self._next = self._loop.call_at(end_s, self._end_step, end_s, prefill)

    def _end_step(self, end_s: float, prefill: list[tuple[Stream, int]]) -> None:
        self._finish_step(end_s, prefill)
        self._begin_step(end_s)

    def _drop_cancelled(self, now_s: float) -> None:
        if not self._any_cancelled:
            return
        self._any_cancelled = False
        for stream in (*self._prefilling, *self._decoding):
            self._reserved_tokens -= stream.reserved_tokens * stream.cancelled
        for stream in self._decoding:
            held = stream.input_tokens + stream.emitted_tokens
            self._context_tokens -= held * stream.cancelled
            stream.last_token_s = now_s if stream.cancelled else None
        self.waiting = deque(s for s in self.waiting if not s.cancelled)
        self._prefilling = deque(s for s in self._prefilling if not s.cancelled)
        self._decoding = [s for s in self._decoding if not s.cancelled]

    def _admit(self) -> None:
        """First come, first served, while a slot and KV memory are free."""
        while self.waiting and self.running < self.settings.max_batch:
            needed = self.waiting[0].reserved_tokens
            if self._reserved_tokens + needed > self.roofline.kv_capacity_tokens:
                return
            self._reserved_tokens += needed
            stream = self.waiting.popleft()
            self._prefilling.append(stream)
            self.streams.append(stream)

    def _plan_prefill(self) -> list[tuple[Stream, int]]:
        """Chunks of prompts for the next step, oldest request first."""
        room = max(1, self.settings.prefill_chunk_tokens - len(self._decoding))
        plan = []
        for stream in self._prefilling:
            chunk = min(room, stream.input_tokens - stream.prefilled_tokens)
            plan.append((stream, chunk))
            room -= chunk
            if room <= 0:
                break
        return plan

    def _book_step(self, start_s: float, prefill: list[tuple[Stream, int]]) -> float:
        """Enter a step that begins at ``start_s`` into the timeline; its end [s]."""
        decoding, context = len(self._decoding), self._context_tokens
        limit_watts = self._limit_watts(start_s)
        cost = self.roofline.step(decoding, context, context, limit_watts)
        fraction = 0.0
        if prefill:
            tokens = sum(chunk for _, chunk in prefill)
            done = [(stream.prefilled_tokens, chunk) for stream, chunk in prefill]
            attended = sum(chunk * before + chunk * (chunk + 1) // 2 for before, chunk in done)
            cached = sum(before for before, _ in done)
            decode_s = cost.duration_s if decoding else 0.0
            cost = self.roofline.step(
                decoding + tokens, context + attended, context + cached, limit_watts
            )
            fraction = max(0.0, 1.0 - decode_s / cost.duration_s)
        end_s = start_s + cost.duration_s
        self._draw_power(start_s, cost, fraction, decoding)
        if prefill:
            self._charge(prefill, start_s, end_s)
        return end_s

    def _charge(self, prefill: list[tuple[Stream, int]], start_s: float, end_s: float) -> None:
        """Note each prompt's share of the step's prefill energy, by tokens."""
        joules = self.timeline.phase_joules("prefill", start_s, end_s)
        tokens = sum(chunk for _, chunk in prefill)
        for stream, chunk in prefill:
            share = PrefillChunk(
                start_s=start_s, end_s=end_s, energy_joules=joules * chunk / tokens
            )
            stream.prefill.append(share)

    def throttled_at(self, time_s: float) -> bool:
        """Whether the power limit is in force at an instant [s, loop clock]."""
        if self.throttle is None or self.first_arrival_s is None:
            return False
        return time_s >= self.first_arrival_s + self.throttle["after_s"]

    def _limit_watts(self, time_s: float) -> float | None:
        if self.throttle is None or not self.throttled_at(time_s):
            return None
        floor_watts = self.roofline.floor_watts
        span_watts = self.roofline.memory_watts - floor_watts
        return floor_watts + self.throttle["limit_fraction"] * span_watts

    def _draw_power(
        self, start_s: float, cost: StepCost, prefill_fraction: float, decoding: int
    ) -> None:
        """Segments of one step: a single one, or several where the power ripples."""
        settings, power_watts = self.settings, cost.power_watts
        if settings.noise_fraction:
            power_watts *= 1 + settings.noise_fraction * float(self._noise.standard_normal())
        if settings.drift_fraction:
            warm = 1 - np.exp(-(start_s - self.started_s) / settings.drift_s)
            power_watts *= 1 + settings.drift_fraction * float(warm)
        end_s = start_s + cost.duration_s
        if not settings.ripple_fraction:
            self.timeline.add(start_s, end_s, power_watts, prefill_fraction, decoding)
            return
        half_s = settings.ripple_period_s / 2
        while start_s < end_s:
            half = int(np.floor(start_s / half_s + 1e-9))
            cut_s = min(end_s, (half + 1) * half_s)
            swing = 1 + settings.ripple_fraction * (1 if half % 2 else -1)
            self.timeline.add(start_s, cut_s, power_watts * swing, prefill_fraction, decoding)
            start_s = cut_s

    def _finish_step(self, end_s: float, prefill: list[tuple[Stream, int]]) -> None:
        emitting = self._decoding
        for stream, chunk in prefill:
            stream.prefilled_tokens += chunk
            if stream.prefilled_tokens == stream.input_tokens:
                self._prefilling.remove(stream)
                self._context_tokens += stream.input_tokens
                stream.first_token_s = end_s
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
                stream.last_token_s = end_s
                finished = True
        if finished:
            self._release_finished()

    def _release_finished(self) -> None:
        for stream in self._decoding:
            if stream.emitted_tokens == stream.output_tokens:
                self._reserved_tokens -= stream.reserved_tokens
                self._context_tokens -= stream.reserved_tokens
        self._decoding = [s for s in self._decoding if s.emitted_tokens < s.output_tokens]
