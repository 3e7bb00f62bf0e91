"""For authors of plug-ins: what a meter and a backend must do, as tests to run on your own.

    from wattbench.testing import check_meter

    def test_my_meter() -> None:
        traces = check_meter(MyMeter, MyOptions(url=…))
        assert traces["my:0"].power_watts.mean() > 0

``check_meter`` builds the meter, lets it run for a moment in real time and raises AssertionError
with the broken rule if it breaks one:

1. ``Options`` is a frozen dataclass; each field has a default or is required, and a help text.
2. ``availability()`` is None or a reason.
3. ``start`` declares each domain once, before its first sample.
4. A domain says what it is: its kind and quantity agree, methods and devices are named, priors are
   not negative.
5. Samples have as many times as values; times are finite, on the run clock, and do not go back.
6. After ``stop`` has returned nothing more comes, and the samples bracket the time between
   ``start`` and ``stop``, unless a ``MeterError`` or a failed read says why not.
7. A failed read is NaN, never 0: this only you can test, by taking the source away half-way.

    from wattbench.testing import check_backend

    def test_my_backend() -> None:
        info = check_backend(MyBackend, MyOptions(url=…))
        assert info.model == "mine"

``check_backend`` opens the backend, asks it a few short questions and closes it:

1. ``Options`` and ``availability()`` as for a meter; ``close`` works also where ``open`` failed.
2. ``open`` gives an ``EngineInfo`` that names model, engine and who counts, and can be stored.
3. The last chunk of each answer, and no other, carries ``usage``; where chunks tell their tokens
   they add up to its count.
4. ``ignore_eos`` gives exactly ``max_output_tokens``, for one request and for many at once.
5. Giving up half-way, by closing or by cancelling, ends that request and disturbs no other.
6. Whatever fails raises ``BackendError``, and the next request works: here a request for nothing
   may fail. That a server which is not there fails so in ``open`` only you can test.
7. After ``close`` nothing of it is left running in the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wattbench.core.energy import EnergyDomain, FloatArray, Trace, trace_of
from wattbench.core.errors import BackendError, MeterError
from wattbench.core.load import InferenceRequest, Message, TokenChunk
from wattbench.core.run import EngineInfo, Event, Json
from wattbench.plugins import PluginContext, describe_options

SETTLE_S = 0.3
"""After ``stop`` a meter, after ``close`` a backend is watched for this long [s]."""
PATIENCE_S = 60.0
"""Longest wait for a backend's answers [s]."""
_MANY_TOKENS = 200


@dataclass(slots=True, kw_only=True)
class MemorySink:
    """A trace sink that keeps everything in memory; its clock starts when it is made in a loop.

    Attributes:
        domains: What was declared, by name.
        times_s: Stamps by domain [s, run clock].
        values: Power [W] or counter [J] by domain.
        events: What meters noted.
    """

    domains: dict[str, EnergyDomain] = field(default_factory=dict)
    times_s: dict[str, list[float]] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    _origin_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    _now_s: Callable[[], float] = field(
        default_factory=lambda: asyncio.get_running_loop().time, repr=False
    )

    def now_s(self) -> float:
        """Time since the sink was made [s]."""
        return self._now_s() - self._origin_s

    def declare(self, domain: EnergyDomain) -> None:
        """Expect samples of a domain."""
        assert domain.name not in self.domains, f"{domain.name} is declared twice"
        self.domains[domain.name] = domain
        self.times_s[domain.name], self.values[domain.name] = [], []

    def sample(
        self,
        domain: str,
        time_s: Sequence[float] | FloatArray,
        value: Sequence[float] | FloatArray,
    ) -> None:
        """Keep samples."""
        assert domain in self.domains, f"{domain} has samples before it is declared"
        assert len(time_s) == len(value), f"{domain}: {len(time_s)} times, {len(value)} values"
        self.times_s[domain].extend(map(float, time_s))
        self.values[domain].extend(map(float, value))

    def note(self, kind: str, **detail: Json) -> None:
        """Keep an event."""
        self.events.append(Event(kind=kind, time_s=self.now_s(), detail=detail))

    def traces(self) -> dict[str, Trace]:
        """What was recorded, by domain."""
        found: dict[str, Trace] = {}
        for name, domain in self.domains.items():
            time_s, value = np.array(self.times_s[name]), np.array(self.values[name])
            found[name] = trace_of(domain, time_s, value)
        return found


def check_meter(
    meter_class: Any,
    options: Any,
    *,
    duration_s: float = 1.0,
    context: PluginContext | None = None,
    on_half: Callable[[], None] | None = None,
) -> Mapping[str, Trace]:
    """Run a meter for a moment and check that it keeps the contract.

    Args:
        meter_class: The plug-in's class.
        options: An instance of its ``Options``.
        duration_s: How long it runs between ``start`` and ``stop`` [s].
        context: What it is constructed with; None: no hardware, seed 0.
        on_half: Called when half the time is over; takes the source away, for example.

    Returns:
        What it recorded, by domain.

    Raises:
        AssertionError: If it breaks a rule, naming it.
        MeterError: If it cannot start.
    """
    check_plugin(meter_class)
    context = context or PluginContext(hardware=None, seed=0)
    return asyncio.run(_watched(meter_class(options, context), duration_s, on_half)).traces()


def record_meter(meter: Any, duration_s: float) -> MemorySink:
    """Let a meter run for a moment, without checks.

    Args:
        meter: A meter, not started.
        duration_s: How long it runs between ``start`` and ``stop`` [s].

    Raises:
        MeterError: If it cannot start, or failed on the way.
    """

    async def record() -> MemorySink:
        sink = MemorySink()
        await meter.start(sink)
        await asyncio.sleep(duration_s)
        await meter.stop()
        return sink

    return asyncio.run(record())


def check_backend(
    backend_class: Any,
    options: Any,
    *,
    at_once: int = 8,
    exact: bool = True,
    context: PluginContext | None = None,
) -> EngineInfo:
    """Open a backend, ask it a few short questions and check that it keeps the contract.

    Args:
        backend_class: The plug-in's class.
        options: An instance of its ``Options``.
        at_once: How many requests are sent together.
        exact: Whether the engine can be made to ignore the end of a text.
        context: What it is constructed with; None: no hardware, seed 0.

    Returns:
        What it says of itself.

    Raises:
        AssertionError: If it breaks a rule, naming it.
        BackendError: If it cannot be opened.
    """
    check_plugin(backend_class)
    context = context or PluginContext(hardware=None, seed=0)
    return asyncio.run(_asked(lambda: backend_class(options, context), at_once, exact))


def check_plugin(plugin: Any) -> None:
    """Check what every plug-in must have, meter or backend.

    Raises:
        AssertionError: If it breaks a rule, naming it.
    """
    options: Any = plugin.Options
    assert hasattr(options, "__dataclass_params__"), "Options is no dataclass"
    assert options.__dataclass_params__.frozen, "Options is not frozen"
    for option in describe_options(options):
        assert option["help"], f"option {option['name']} has no help"
    reason = plugin.availability()
    assert reason is None or (isinstance(reason, str) and reason), "availability() is no reason"
    assert (plugin.__doc__ or "").strip(), "the class has no docstring for `wattbench list`"


async def _watched(meter: Any, duration_s: float, on_half: Callable[[], None] | None) -> MemorySink:
    sink = MemorySink()
    await meter.start(sink)
    assert sink.domains, "no domain was declared by start()"
    begin_s = sink.now_s()
    await asyncio.sleep(duration_s / 2)
    if on_half is not None:
        await asyncio.to_thread(on_half)
    await asyncio.sleep(duration_s / 2)
    end_s = sink.now_s()
    failed = False
    try:
        await meter.stop()
    except MeterError:
        failed = True
    counts = {name: len(times) for name, times in sink.times_s.items()}
    await asyncio.sleep(SETTLE_S)
    for name, times in sink.times_s.items():
        assert len(times) == counts[name], f"{name} has samples after stop() returned"
    for domain in sink.domains.values():
        _check_domain(domain)
        _check_samples(sink, domain.name, None if failed else (begin_s, end_s))
    return sink


def _check_domain(domain: EnergyDomain) -> None:
    name = domain.name
    if domain.kind in ("counter", "integrated"):
        wanted = "energy_counter" if domain.kind == "counter" else "power"
        assert domain.quantity == wanted, f"{name}: {domain.quantity} is not of kind {domain.kind}"
    assert domain.method, f"{name} does not say how its samples come about"
    assert domain.devices, f"{name} covers no device"
    assert domain.parent != name, f"{name} is its own parent"
    widths = (
        domain.gain_half_width_fraction,
        domain.offset_half_width_watts,
        domain.clock_half_width_s,
    )
    assert all(math.isfinite(w) and w >= 0 for w in widths), f"{name}: a prior is negative"
    period_s = domain.update_period_s
    assert period_s is None or period_s > 0, f"{name}: update period {period_s}"


def _check_samples(sink: MemorySink, name: str, span_s: tuple[float, float] | None) -> None:
    times, values = np.array(sink.times_s[name]), np.array(sink.values[name])
    assert len(times), f"{name} has no samples"
    assert np.isfinite(times).all(), f"{name}: a time is not finite"
    assert (np.diff(times) >= 0).all(), f"{name}: times go back"
    assert times[-1] <= sink.now_s(), f"{name}: a time lies in the future of the run clock"
    if span_s is not None and np.isfinite(values[-1]):
        assert times[0] <= span_s[0], f"{name}: the first sample comes after start() returned"
        assert times[-1] >= span_s[1], f"{name}: no sample after stop() was called"


async def _asked(make: Callable[[], Any], at_once: int, exact: bool) -> EngineInfo:
    await make().close()
    before = asyncio.all_tasks()
    backend = make()
    try:
        async with _patience("open()"):
            info: EngineInfo = await backend.open()
        _check_info(info)
        async with _patience("an answer"):
            await _answer(backend, 0, 16, exact)
        async with _patience(f"{at_once} answers at once"):
            await asyncio.gather(*(_answer(backend, i, 8 + i % 4, exact) for i in range(at_once)))
        async with _patience("requests beside some that were given up"):
            await _check_giving_up(backend, exact)
        with contextlib.suppress(BackendError):
            async with _patience("a request for no tokens"):
                async for _ in backend.generate(_question(0, 0)):
                    pass
        async with _patience("an answer after a failure"):
            await _answer(backend, 1, 8, exact)
    finally:
        await backend.close()
    await asyncio.sleep(SETTLE_S)
    left = [task.get_coro() for task in asyncio.all_tasks() - before]
    assert not left, f"close() has left tasks running: {left}"
    return info


@contextlib.asynccontextmanager
async def _patience(what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield
    except TimeoutError:
        raise AssertionError(f"{what} took more than {PATIENCE_S:g} s") from None


def _check_info(info: Any) -> None:
    assert isinstance(info, EngineInfo), f"open() gave {info!r} and no EngineInfo"
    assert info.model, "EngineInfo names no model"
    assert info.engine, "EngineInfo names no engine"
    assert info.tokens_source in ("usage", "engine"), f"tokens_source is {info.tokens_source!r}"
    json.dumps(dataclasses.asdict(info), allow_nan=False)


def _question(index: int, tokens: int) -> InferenceRequest:
    return InferenceRequest(
        index=index,
        session_index=index,
        turn_index=0,
        messages=(Message(role="user", tokens=12, seed=index),),
        max_output_tokens=tokens,
    )


async def _answer(backend: Any, index: int, tokens: int, exact: bool) -> None:
    chunks: list[TokenChunk] = [c async for c in backend.generate(_question(index, tokens))]
    assert chunks, f"request {index} was answered without a chunk"
    early = [number for number, chunk in enumerate(chunks[:-1]) if chunk.usage is not None]
    assert not early, f"chunk {early[:1]} of {len(chunks)} carries usage, which is for the last"
    usage = chunks[-1].usage
    assert usage is not None, "the last chunk carries no usage"
    told = [chunk.tokens for chunk in chunks]
    count = None if None in told else sum(token or 0 for token in told)
    if count is not None and usage.output_tokens is not None:
        assert count == usage.output_tokens, (
            f"chunks have {count} tokens, usage has {usage.output_tokens}"
        )
    found = usage.output_tokens if usage.output_tokens is not None else count
    if exact and found is not None:
        assert found == tokens, f"ignore_eos: {tokens} tokens were asked for, {found} came"


async def _check_giving_up(backend: Any, exact: bool) -> None:
    other = asyncio.create_task(_answer(backend, 2, 40, exact))
    cancelled = asyncio.create_task(_answer(backend, 3, _MANY_TOKENS, exact))
    stream = backend.generate(_question(4, _MANY_TOKENS))
    assert hasattr(stream, "aclose"), "generate() is no asynchronous generator"
    await anext(stream)
    await stream.aclose()
    cancelled.cancel()
    await asyncio.wait([cancelled])
    assert cancelled.cancelled(), "a cancelled request did not pass CancelledError on"
    await other
    await _answer(backend, 5, 8, exact)
