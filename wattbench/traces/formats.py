"""Formats of trace files: which column means what.

azure     CSV of Azure's LLM inference traces: TIMESTAMP, ContextTokens, GeneratedTokens
mooncake  JSON lines of Mooncake's traces: timestamp [ms], input_length, output_length, hash_ids
burstgpt  CSV of BurstGPT: Timestamp [s], Request tokens, Response tokens, and perhaps
          Session ID and Elapsed time [s]
csv       time_s, and input_tokens with output_tokens where they are known; session, think_s
          and class if they are there
jsonl     JSON lines: arrival_s, input_tokens, output_tokens; session, think_s, class, blocks
          and block_tokens if they are there
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

Format = Literal["azure", "mooncake", "burstgpt", "csv", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)
TICKS_PER_S = 10**7


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Where a format has what.

    Attributes:
        time: Column of the arrival.
        lengths: Columns of the prompt's and the answer's length.
        parse: One time, as a number of ``1 / per_s`` seconds.
        per_s: How many of these make a second.
        optional_lengths: Whether times alone will do.
        labels: Columns of names (session, class, model), by what they are called here.
        pauses: Columns of seconds, blank for unknown, by what they are called here.
        blocks: Key of a request's prefix blocks.
        json: Whether a line is an object, not a row.
    """

    time: str
    lengths: tuple[str, str]
    parse: Callable[[Any], float | int] = float
    per_s: int = 1
    optional_lengths: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    pauses: Mapping[str, str] = field(default_factory=dict)
    blocks: str | None = None
    json: bool = False


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def ticks(value: Any) -> int:
    """A date as a whole number of 100 ns; ``datetime`` alone would drop the seventh digit."""
    moment = datetime.fromisoformat(value)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    seventh = value[26:27] if value[19:20] in (".", ",") else ""
    return (moment - _EPOCH) // _MICROSECOND * 10 + (int(seventh) if seventh.isdecimal() else 0)


COLUMNS: Mapping[Format, Columns] = {
    "azure": Columns(
        time="TIMESTAMP",
        lengths=("ContextTokens", "GeneratedTokens"),
        parse=ticks,
        per_s=TICKS_PER_S,
    ),
    "mooncake": Columns(
        time="timestamp",
        lengths=("input_length", "output_length"),
        per_s=1000,
        blocks="hash_ids",
        json=True,
    ),
    "burstgpt": Columns(
        time="Timestamp",
        lengths=("Request tokens", "Response tokens"),
        labels={"session": "Session ID", "model": "Model"},
        pauses={"elapsed_s": "Elapsed time"},
    ),
    "csv": Columns(
        time="time_s",
        lengths=("input_tokens", "output_tokens"),
        optional_lengths=True,
        labels={"session": "session", "class": "class", "model": "model"},
        pauses={"think_s": "think_s"},
    ),
    "jsonl": Columns(
        time="arrival_s",
        lengths=("input_tokens", "output_tokens"),
        labels={"session": "session", "class": "class", "model": "model"},
        pauses={"think_s": "think_s"},
        blocks="blocks",
        json=True,
    ),
}
