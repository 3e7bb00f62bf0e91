"""What an engine logged of requests: the input of a calibration.

A JSONL file with one object per request, in any order:

    input_toks | input_tokens, output_toks | output_tokens       tokens
    queued_ts | arrival_s                                        when it was queued [s]
    first_token_ts | first_token_s, last_token_ts | last_token_s when it had its tokens [s]
    scheduled_ts                                                 when it was scheduled [s], if told

and beside it a JSON file of the engine: ``max_num_seqs``, ``max_num_batched_tokens`` and the KV
capacity, under ``engine_kwargs`` and ``kv_cache.num_kv_tokens`` or at the top.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wattbench.core.errors import UsageError
from wattbench.core.files import why_irregular
from wattbench.hardware import ModelDescriptor, load_model, model_names
from wattbench.routing.calibration import ATTENTION_RATIO, PLACES, Array, EngineLimits

KEYS: Mapping[str, tuple[str, ...]] = {
    "input": ("input_toks", "input_tokens"),
    "output": ("output_toks", "output_tokens"),
    "queued": ("queued_ts", "arrival_s"),
    "first": ("first_token_ts", "first_token_s"),
    "last": ("last_token_ts", "last_token_s"),
}
MAX_STEP_TOKENS = 2048
"""Where an engine does not say: vLLM's on GPUs of less than 70 GiB."""
MAX_BYTES = 2_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EngineLog:
    """Requests in the order in which they were queued, arrays (n,); times from the first on [s].

    ``wait_s`` is from queued to scheduled, None if the log has no such time.
    """

    queued_s: Array
    input_tokens: Array
    output_tokens: Array
    first_s: Array
    last_s: Array
    wait_s: Array | None

    def __len__(self) -> int:
        return len(self.queued_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine's limits, the model it serves and what had to be assumed."""

    limits: EngineLimits
    model: str
    assumed: tuple[str, ...]


def read_engine_log(path: Path) -> EngineLog:
    """Read the requests.

    Raises:
        UsageError: If the file is no such log, with the line and the key.
    """
    rows = [
        _row(path, number, line)
        for number, line in enumerate(_lines(path), start=1)
        if line.strip()
    ]
    if not rows:
        raise UsageError(f"{path} holds no requests; give an engine's log, one object a line")
    table = np.array([row[:5] for row in rows])
    order = np.argsort(table[:, 2], kind="stable")
    table = table[order]
    start_s = table[0, 2]
    scheduled = np.array([math.nan if row[5] is None else row[5] for row in rows])[order]
    return EngineLog(
        queued_s=table[:, 2] - start_s,
        input_tokens=table[:, 0].astype(np.int64),
        output_tokens=table[:, 1].astype(np.int64),
        first_s=table[:, 3] - start_s,
        last_s=table[:, 4] - start_s,
        wait_s=None if np.isnan(scheduled).any() else scheduled - table[:, 2],
    )


def _lines(path: Path) -> list[str]:
    reason = why_irregular(path)
    if reason is not None:
        raise UsageError(f"{path} cannot be read: {reason}; give an engine's log of requests")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path} is larger than {MAX_BYTES // 10**9} GB; give a part of it")
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}; give an engine's log, JSONL") from error


def _row(
    path: Path, number: int, line: str
) -> tuple[float, float, float, float, float, float | None]:
    place = f"{path}, line {number}"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: no JSON object; a log has one request a line") from error
    if not isinstance(row, dict):
        raise UsageError(f"{place}: no JSON object; a log has one request a line")
    inputs, outputs, queued_s, first_s, last_s = (
        _number(place, row, keys) for keys in KEYS.values()
    )
    for key, tokens in (("input", inputs), ("output", outputs)):
        if tokens < 1 or tokens != int(tokens) or tokens > 10**7:
            raise UsageError(
                f"{place}: {KEYS[key][0]} is {tokens:g}; tokens are whole, from 1 to 10,000,000"
            )
    if not queued_s <= first_s <= last_s:
        raise UsageError(
            f"{place}: queued at {queued_s:g} s, first token at {first_s:g} s, last token at "
            f"{last_s:g} s; these follow one another, on one clock"
        )
    scheduled = row.get("scheduled_ts")
    return inputs, outputs, queued_s, first_s, last_s, _plain(scheduled)


def _number(place: str, row: Mapping[str, Any], keys: tuple[str, ...]) -> float:
    for key in keys:
        value = _plain(row.get(key))
        if value is not None:
            return value
        if key in row:
            raise UsageError(f"{place}: {key} is {str(row[key])[:40]!r}; a finite number is due")
    raise UsageError(f"{place}: there is neither {' nor '.join(keys)}; see docs/simulation.md")


def _plain(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def read_engine(path: Path | None, model: str = "") -> Engine:
    """Limits of the engine; what its file does not tell is assumed, and said to be.

    ``model`` is what it serves, where the file does not say.

    Raises:
        UsageError: If the file cannot be read, or states no possible limit.
    """
    stated: dict[str, Any] = {} if path is None else _object(path)
    inner = stated.get("engine_kwargs")
    arguments = {**stated, **(inner if isinstance(inner, dict) else {})}
    cache = stated.get("kv_cache") if isinstance(stated.get("kv_cache"), dict) else stated
    assumed: list[str] = []
    max_batch = _limit(path, arguments, "max_num_seqs", None, assumed)
    max_step = _limit(path, arguments, "max_num_batched_tokens", MAX_STEP_TOKENS, assumed)
    capacity = _limit(path, cache or {}, "num_kv_tokens", None, assumed)
    block = _limit(path, cache or {}, "block_size", 16, [])
    model = str(stated.get("model") or arguments.get("model") or model)
    rule = stated.get("kv_rule", "prompt")
    if rule not in ("prompt", "whole"):
        raise UsageError(f"{path}: kv_rule is {str(rule)[:40]!r}; it is prompt or whole")
    ratio = _attention_ratio(model)
    if ratio is None:
        assumed.append(
            f"attention of a token takes {ATTENTION_RATIO:g} of its arithmetic per token of context"
        )
    return Engine(
        limits=EngineLimits(
            max_batch=max_batch,
            max_step_tokens=max(max_step or MAX_STEP_TOKENS, (max_batch or PLACES) + 1),
            kv_capacity_tokens=capacity,
            kv_request_tokens=(block or 16) // 2,
            kv_rule="whole" if rule == "whole" else "prompt",
            attention_ratio=ratio or ATTENTION_RATIO,
        ),
        model=model,
        assumed=tuple(assumed),
    )


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads("\n".join(_lines(path)))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON: {str(error)[:80]}; give the engine's file") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no JSON object; give the engine's file")
    return found


def _limit(
    path: Path | None,
    stated: Mapping[str, Any],
    key: str,
    otherwise: int | None,
    assumed: list[str],
) -> int | None:
    value = stated.get(key)
    if value is None:
        if otherwise is not None:
            assumed.append(f"{key} = {otherwise}")
        return otherwise
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 2**30:
        raise UsageError(f"{path}: {key} is {str(value)[:40]!r}; a whole number from 1 on is due")
    return value


def _attention_ratio(model: str) -> float | None:
    """κ of a model that is known by name."""
    name = model.rpartition("/")[2].lower()
    known = [each for each in model_names() if name and (name.startswith(each) or each == name)]
    if not known:
        return None
    descriptor: ModelDescriptor = load_model(max(known, key=len))
    return descriptor.attention_flops_per_context_token / (2.0 * descriptor.active_parameters)
