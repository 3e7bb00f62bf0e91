"""A trace file to a trace: known by its columns, strict about what is in it."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wattbench.core.energy import FloatArray
from wattbench.core.errors import UsageError
from wattbench.core.files import why_irregular
from wattbench.traces.doubts import block_doubts, doubts_about
from wattbench.traces.formats import COLUMNS, FORMATS, Format
from wattbench.traces.record import MAX_CLASSES, Trace, TraceSource
from wattbench.traces.rows import Rows, read_rows

LFS = "version https://git-lfs.github.com/"
MOONCAKE_BLOCK_TOKENS = 512
"""Text in one of Mooncake's blocks: github.com/kvcache-ai/Mooncake, FAST25-release."""
MAX_SPAN_S = 1e10
"""Three hundred years: a time beyond is in another unit."""
LICENCES = {
    "54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6": "azure",
    "2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8": "azure",
    "bd070915a98fc0ed264d7cfef2ce746002eb3076a695ec31ba2674c0111ec131": "mooncake",
}
"""Public files whose digest says what they are: Azure 2023 code and conv, Mooncake synthetic."""
CITATIONS = {
    "azure": "CC BY 4.0 (github.com/Azure/AzurePublicDataset); cite Patel et al., Splitwise, "
    "ISCA 2024",
    "mooncake": "Apache-2.0 (github.com/kvcache-ai/Mooncake); cite Qin et al., Mooncake, FAST 2025",
}


def read_trace(path: str | Path, format: Format | None = None, *, seed: int = 0) -> Trace:
    """The requests of a trace file, also a gzipped one.

    Args:
        path: The file.
        format: What it is; None: recognised by its columns.
        seed: Makes the jitter of times that are whole seconds.

    Raises:
        UsageError: With file, line and value, and what to do.
    """
    path = Path(path)
    try:
        with _lines(path) as lines:
            first = next((line for line in lines if line.strip()), None)
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise UsageError(f"{path} cannot be read: {_reason(error)}") from error
    if first is None:
        raise UsageError(f"{path} is empty: a trace needs a line for each request")
    if first.startswith(LFS):
        raise UsageError(
            f"{path} line 1: a pointer of Git LFS, not the data; run git lfs pull where it is from"
        )
    form = format or _recognised(first, path)
    least_tokens = 0 if form == "burstgpt" else 1
    try:
        with _lines(path) as lines:
            rows = read_rows(lines, form, str(path), least_tokens=least_tokens, extras=True)
        return _trace(rows, form, path, seed)
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise UsageError(f"{path} cannot be read: {_reason(error)}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error


@contextlib.contextmanager
def _lines(path: Path) -> Iterator[Iterator[str]]:
    """The lines of a file, gzipped or not."""
    if (why := why_irregular(path)) is not None:
        raise UsageError(f"{path} is {why}")
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(path.open("rb"))
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        unzipped = stack.enter_context(gzip.GzipFile(fileobj=raw)) if zipped else raw
        yield stack.enter_context(io.TextIOWrapper(unzipped, encoding="utf-8-sig", newline=""))


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"it is no UTF-8 text ({error.reason} at byte {error.start} of a part)"
    return getattr(error, "strerror", None) or str(error)


def _recognised(first: str, path: Path) -> Format:
    """The format that has the columns of a first line."""
    keys: list[str]
    if first.lstrip().startswith("{"):
        try:
            keys = list(json.loads(first))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path} line 1: is no JSON: {error}") from error
    else:
        keys = [column.strip().strip('"') for column in first.split(",")]
    is_json = first.lstrip().startswith("{")
    for form in FORMATS:
        columns = COLUMNS[form]
        needed = {columns.time} | (set() if columns.optional_lengths else {*columns.lengths})
        if columns.json == is_json and needed <= set(keys):
            return form
    known = "; ".join(
        f"{form}: {columns.time}, {', '.join(columns.lengths)}" for form, columns in COLUMNS.items()
    )
    raise UsageError(
        f"{path} line 1: no known format has the columns {', '.join(keys)[:100]}; known are {known}"
    )


def _trace(rows: Rows, form: Format, path: Path, seed: int) -> Trace:
    columns, name = COLUMNS[form], str(path)
    count = len(rows.line)
    if not count:
        raise ValueError(f"{name} has no request: a trace needs a line for each")
    if rows.lengths_tokens is None:
        raise ValueError(
            f"{name} line 1: the columns {' and '.join(columns.lengths)} are missing; a simulated "
            f"request needs both"
        )
    _check_order(rows, columns.time, name)
    model = rows.labels["model"].code if "model" in rows.labels else None
    doubts = doubts_about(path.name, form, rows.time_s, model)
    kept, changes = _kept(rows.lengths_tokens, columns.lengths, name)
    arrival_s = rows.time_s[kept]
    if form == "burstgpt" and np.all(arrival_s == np.floor(arrival_s)):
        arrival_s = _jittered(arrival_s, seed)
        changes.append(
            f"times are whole seconds: each request moved within its second at random, seed {seed}"
        )
    parent, think_s, said = _sessions(rows, kept, arrival_s)
    start, blocks, block_tokens, also_said, block_doubt = _blocks(rows, form, kept, name)
    slo_class, class_names = _classes(rows, kept, name)
    digest = _digest(path)
    return Trace(
        arrival_s=np.ascontiguousarray(arrival_s - arrival_s[0]),
        input_tokens=rows.lengths_tokens[kept, 0].astype(np.int32),
        output_tokens=rows.lengths_tokens[kept, 1].astype(np.int32),
        parent=parent,
        think_s=think_s,
        block_start=start,
        blocks=blocks,
        block_tokens=block_tokens,
        slo_class=slo_class,
        class_names=class_names,
        source=TraceSource(
            name=path.name,
            format=form,
            sha256=digest,
            licence=CITATIONS.get(LICENCES.get(digest, "")),
            changes=(*changes, *said, *also_said),
            doubts=(*doubts, *block_doubt),
        ),
    )


def _digest(path: Path) -> str:
    with path.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


def _check_order(rows: Rows, column: str, name: str) -> None:
    with np.errstate(over="ignore"):
        since_s = rows.time_s - rows.time_s[0]
        earlier = np.diff(rows.time_s) < 0
    if earlier.any():
        index = int(np.argmax(earlier)) + 1
        raise ValueError(
            f"{name} line {rows.line[index]}: {column} is {since_s[index]:g} s after the first "
            f"request, earlier than {since_s[index - 1]:g} s in line {rows.line[index - 1]}; sort "
            f"the file by {column}"
        )
    if since_s[-1] > MAX_SPAN_S:
        index = int(np.argmax(since_s > MAX_SPAN_S))
        raise ValueError(
            f"{name} line {rows.line[index]}: {column} is {since_s[index]:g} s after the first "
            f"request; a trace lasts up to {MAX_SPAN_S:g} s, so convert it to seconds"
        )


def _kept(
    lengths_tokens: NDArray[np.int64], columns: tuple[str, str], name: str
) -> tuple[NDArray[np.int64], list[str]]:
    """Rows that were answered; only BurstGPT's lengths may be 0 here."""
    unanswered = lengths_tokens[:, 1] == 0
    without_prompt = (lengths_tokens[:, 0] == 0) & ~unanswered
    changes = [
        f"{int(gone.sum())} of {len(gone)} requests dropped: {column} = 0{meaning}"
        for gone, column, meaning in (
            (unanswered, columns[1], ", a failure"),
            (without_prompt, columns[0], " with an answer"),
        )
        if gone.any()
    ]
    kept = np.flatnonzero(~(unanswered | without_prompt))
    if not len(kept):
        raise ValueError(f"{name}: no request was answered: all {columns[1]} are 0")
    return kept, changes


def _jittered(time_s: FloatArray, seed: int) -> FloatArray:
    """Whole seconds spread over their second; the order of the rows stays."""
    moved_s = np.random.default_rng((seed, 0x71)).random(len(time_s))
    return np.asarray((time_s + moved_s)[np.lexsort((moved_s, time_s))])


def _sessions(
    rows: Rows, kept: NDArray[np.int64], arrival_s: FloatArray
) -> tuple[NDArray[np.int32] | None, FloatArray | None, list[str]]:
    """Previous turns and pauses before each turn."""
    if "session" not in rows.labels:
        return None, None, []
    parent = parents_of(rows.labels["session"].code[kept])
    later = np.flatnonzero(parent >= 0)
    if not len(later):
        return None, None, []
    think_s, changes = np.zeros(len(kept)), []
    gap_s = arrival_s[later] - arrival_s[parent[later]]
    if "elapsed_s" in rows.pauses_s:
        answered_s = rows.pauses_s["elapsed_s"][kept][parent[later]]
        think_s[later] = np.maximum(gap_s - np.nan_to_num(answered_s), 0.0)
        changes.append(f"pauses before {len(later)} later turns: the gap less the answer's time")
        unknown = int(np.isnan(answered_s).sum())
    else:
        given_s = rows.pauses_s.get("think_s", np.full(len(rows.line), np.nan))[kept][later]
        think_s[later] = np.where(np.isnan(given_s), gap_s, given_s)
        unknown = int(np.isnan(given_s).sum())
    if unknown:
        changes.append(
            f"pauses before {unknown} later turns are not known: the whole gap since the turn "
            f"before stands for them, the time of its answer included"
        )
    return parent, think_s, changes


def parents_of(session: NDArray[np.int32]) -> NDArray[np.int32]:
    """Index of the previous row of the same session, −1 for the first; −1 means no session."""
    order = np.argsort(session, kind="stable")
    same = (session[order][1:] == session[order][:-1]) & (session[order][1:] >= 0)
    parent = np.full(len(session), -1, dtype=np.int32)
    parent[order[1:][same]] = order[:-1][same]
    return parent


Blocks = tuple[
    NDArray[np.int64] | None, NDArray[np.int32] | None, int | None, list[str], tuple[str, ...]
]


def _blocks(rows: Rows, form: Format, kept: NDArray[np.int64], name: str) -> Blocks:
    """Prefix blocks, numbered from 0 on, with what was assumed and what is doubtful."""
    counts, written = rows.block_counts, rows.blocks
    if counts is None or written is None:
        return None, None, None, [], ()
    tokens, changes = rows.block_tokens, []
    if tokens is None:
        tokens = MOONCAKE_BLOCK_TOKENS
        if form != "mooncake":
            changes.append(f"block_tokens is not written: {tokens} assumed, as Mooncake has")
    assert rows.lengths_tokens is not None
    most = -(-rows.lengths_tokens[:, 0] // tokens)
    if np.any(counts > most):
        index = int(np.argmax(counts > most))
        raise ValueError(
            f"{name} line {rows.line[index]}: {counts[index]} blocks of {tokens} tokens in "
            f"{rows.lengths_tokens[index, 0]} tokens; the trace has shorter blocks: write it as "
            f"jsonl with block_tokens"
        )
    assert len(kept) == len(counts), "formats with failures have no blocks"
    _, numbered = np.unique(written, return_inverse=True)
    blocks = numbered.astype(np.int32)
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return start, blocks, tokens, changes, block_doubts(counts, blocks)


def _classes(
    rows: Rows, kept: NDArray[np.int64], name: str
) -> tuple[NDArray[np.int8] | None, tuple[str, ...]]:
    if "class" not in rows.labels:
        return None, ()
    code, names = rows.labels["class"].code[kept], tuple(rows.labels["class"].codes)
    if np.any(code < 0):
        line = rows.line[kept][int(np.argmax(code < 0))]
        raise ValueError(f"{name} line {line}: class is blank; write one for every request")
    if len(names) > MAX_CLASSES:
        raise ValueError(f"{name}: {len(names)} classes; at most {MAX_CLASSES}, so join some")
    return code.astype(np.int8), names
