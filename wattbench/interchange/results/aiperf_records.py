"""AIPerf's ``profile_export.jsonl``: a line per request, read anew whenever it is needed.

``*_ns`` are Unix nanoseconds. ``inter_chunk_latency`` of a record lists the gaps between its
chunks; releases that left it out let the tokens be spread between the first and the last. A run
that did not stream has no first token: its requests have no chunks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wattbench.core.energy import FloatArray
from wattbench.core.load import RequestResult
from wattbench.interchange.results.fields import Fields
from wattbench.interchange.results.glance import Glance
from wattbench.interchange.results.rebuilt import MAX_ANSWER_TOKENS, asked, spread_s

S_PER_UNIT = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0}

TAKEN = frozenset(
    {
        "time_to_first_token",
        "request_latency",
        "inter_chunk_latency",
        "output_sequence_length",
        "input_sequence_length",
        "usage_completion_tokens",
        "usage_prompt_tokens",
        "usage_prompt_cache_read_tokens",
    }
)
"""Metrics of a record that are read; the others follow from these, or are only kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one pass over the records shows; sums are of measured requests that succeeded.

    Attributes:
        window_s: First start to last end of the profiling phase [Unix s]; None if it is empty.
        spread: Whether an answer of several tokens lists no gaps between its chunks.
        usage: Whether the server counted.
        completed_count: Measured requests that succeeded.
        failed_count: Measured requests that failed.
        input_tokens: Their prompt tokens, None as soon as one is unknown.
        output_tokens: Their answer tokens, None as soon as one is unknown.
    """

    window_s: tuple[float, float] | None = None
    spread: bool = False
    usage: bool = False
    completed_count: int = 0
    failed_count: int = 0
    input_tokens: int | None = 0
    output_tokens: int | None = 0


def results(glance: Glance, *, open_loop: bool) -> Iterator[RequestResult]:
    """Each request, as the file is read.

    Args:
        glance: The file.
        open_loop: Whether the load wanted to send at an instant of its own, and not when a user
            was free: waiting for a slot counts then.
    """
    for index, (place, value) in enumerate(glance.objects()):
        yield _result(place, value, index, open_loop=open_loop)


def seen(glance: Glance) -> Seen:
    """One pass over the file; nothing of it stays in memory."""
    found = Seen()
    for index, (place, value) in enumerate(glance.objects()):
        result = _result(place, value, index, open_loop=False)
        if result.phase != "measured":
            continue
        start_s, end_s = found.window_s or (math.inf, -math.inf)
        window_s = (min(start_s, result.sent_s), max(end_s, result.end_s))
        if not result.succeeded:
            found = replace(found, window_s=window_s, failed_count=found.failed_count + 1)
            continue
        found = replace(
            found,
            window_s=window_s,
            spread=found.spread or _is_spread(value, result),
            usage=found.usage or result.tokens_source == "usage",
            completed_count=found.completed_count + 1,
            input_tokens=_sum(found.input_tokens, result.input_tokens),
            output_tokens=_sum(found.output_tokens, result.output_tokens),
        )
    return found


def _sum(total: int | None, more: int | None) -> int | None:
    return None if total is None or more is None else total + more


def _is_spread(record: Any, result: RequestResult) -> bool:
    gaps = (record.get("metrics") or {}).get("inter_chunk_latency") or {}
    return len(result.chunk_s) > 1 and not isinstance(gaps.get("value"), list)


def _result(place: str, value: Any, index: int, *, open_loop: bool) -> RequestResult:
    record = Fields(place, value)
    metadata = Fields(place, record.raw("metadata"), prefix="metadata")
    metrics = Fields(place, record.raw("metrics") or {}, prefix="metrics")
    start_s, end_s = (_instant_s(metadata, f"request_{edge}_ns") for edge in ("start", "end"))
    if start_s is None or end_s is None:
        raise metadata.bad("request_start_ns", None, "so when the request ran is unknown")
    if end_s < start_s:
        raise metadata.bad("request_end_ns", metadata.raw("request_end_ns"), "before its start")
    usage = _count(metrics, "usage_completion_tokens")
    tokens = usage if usage is not None else _count(metrics, "output_sequence_length")
    error = _error(record, metadata)
    prompt = _count(metrics, "usage_prompt_tokens")
    credit_s = _instant_s(metadata, "credit_issued_ns") if open_loop else None
    answer = None if error else tokens
    chunk_s = start_s + _chunks_s(metrics, answer)
    return RequestResult(
        request=asked(
            index,
            answer,
            session_index=metadata.count("session_num"),
            turn_index=metadata.count("turn_index") or 0,
        ),
        phase="measured" if metadata.text("benchmark_phase") in (None, "profiling") else "warmup",
        queued_s=start_s if credit_s is None else min(credit_s, start_s),
        sent_s=start_s,
        end_s=end_s,
        chunk_s=chunk_s,
        chunk_tokens=np.full(len(chunk_s), np.nan),
        input_tokens=prompt if prompt is not None else _count(metrics, "input_sequence_length"),
        output_tokens=answer,
        cached_tokens=_count(metrics, "usage_prompt_cache_read_tokens"),
        tokens_source="usage" if usage is not None and not error else None,
        error_class=error[0] if error else None,
        error_text=error[1] if error else None,
    )


def _instant_s(metadata: Fields, name: str) -> float | None:
    instant_ns = metadata.raw(name)
    if instant_ns is None:
        return None
    if isinstance(instant_ns, bool) or not isinstance(instant_ns, int) or instant_ns < 0:
        raise metadata.bad(name, instant_ns, "no Unix time in nanoseconds")
    return instant_ns / 1e9


def _chunks_s(metrics: Fields, tokens: int | None) -> FloatArray:
    """Arrival of each chunk after the request was sent [s]; none without a first token."""
    first_s = _seconds(metrics, "time_to_first_token")
    last_s = _seconds(metrics, "request_latency")
    if first_s is None:
        return np.empty(0)
    gaps_s = _gaps_s(metrics)
    if gaps_s is not None:
        return first_s + np.concatenate([[0.0], np.cumsum(gaps_s)])
    if not tokens or last_s is None:
        return np.empty(0)
    return spread_s(first_s, max(first_s, last_s), tokens)


def _gaps_s(metrics: Fields) -> FloatArray | None:
    block = metrics.nested("inter_chunk_latency")
    if block is None or not isinstance(block.raw("value"), list):
        return None  # a release that gives their mean
    gaps = np.array(block.numbers("value"))
    if (gaps < 0).any():
        raise block.bad("value", float(gaps.min()), "a gap below zero")
    return np.asarray(gaps * _s_per_unit(block))


def _seconds(metrics: Fields, name: str) -> float | None:
    block = metrics.nested(name)
    value = None if block is None else block.number("value")
    if block is None or value is None:
        return None
    if value < 0:
        raise block.bad("value", value, "a time below zero")
    return value * _s_per_unit(block)


def _s_per_unit(block: Fields) -> float:
    unit = block.raw("unit")
    if unit not in S_PER_UNIT:
        raise block.bad("unit", unit, f"not a unit of time; one of {', '.join(S_PER_UNIT)}")
    return S_PER_UNIT[unit]


def _count(metrics: Fields, name: str) -> int | None:
    block = metrics.nested(name)
    count = None if block is None else block.count("value")
    if count is not None and count > MAX_ANSWER_TOKENS:
        raise metrics.bad(name, count, "more tokens than a request can have")
    return count


def _error(record: Fields, metadata: Fields) -> tuple[str, str] | None:
    told = record.raw("error")
    if told is not None:
        error = Fields(record.place, told, prefix="error")
        code = error.raw("code")
        kind = error.text("type") or (f"HTTP {code}" if code is not None else "Error")
        return kind, error.text("message") or kind
    if metadata.raw("was_cancelled") is True:
        return "Cancelled", "AIPerf cancelled it"
    if metadata.raw("context_overflow_skip") is True:
        return "ContextOverflow", "AIPerf skipped it: it did not fit the context"
    return None
