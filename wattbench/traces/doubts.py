"""Why a trace may be invented, or be another one than its name says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wattbench.core.energy import FloatArray

MIN_JUDGED = 20
"""Fewer requests say nothing about a pattern."""
MAX_CYCLE = 8
USUAL_ROWS = {"azure": 8819, "burstgpt": 1_404_300, "mooncake": 3993}
"""Rows of the smallest public file of each: github.com/Azure/AzurePublicDataset (2023, code),
github.com/HPMLL/BurstGPT (without failures, file 1), github.com/kvcache-ai/Mooncake (synthetic)."""
FEW_FRACTION = 0.5


def doubts_about(
    name: str, form: str, time_s: FloatArray, model: NDArray[np.int32] | None
) -> tuple[str, ...]:
    """What looks wrong, in words with figures.

    Args:
        name: Of the file.
        form: Its format.
        time_s: Arrivals in the order of the file [s].
        model: Number of each row's model, if the file has models.
    """
    found = [_few_rows(name, form, len(time_s)), _constant_gaps(time_s), _cycling(model)]
    return tuple(doubt for doubt in found if doubt is not None)


def block_doubts(counts: NDArray[np.int64], blocks: NDArray[np.int32]) -> tuple[str, ...]:
    """Blocks that come after different texts, although equal numbers mean the same text before."""
    before = np.full(len(blocks), -1, dtype=np.int64)
    before[1:] = blocks[:-1]
    start = np.cumsum(counts) - counts
    before[start[counts > 0]] = -1
    usual = np.empty(int(blocks.max()) + 1, dtype=np.int64)
    usual[blocks] = before
    count = len(np.unique(blocks[usual[blocks] != before]))
    if not count:
        return ()
    return (
        f"{count} of {len(usual)} blocks come after another block in one request than in another: "
        f"equal numbers do not mean equal text before them, and a prefix cache finds too much",
    )


def _few_rows(name: str, form: str, count: int) -> str | None:
    known = form if form in USUAL_ROWS else next((n for n in USUAL_ROWS if n in name.lower()), None)
    if known is None or count >= FEW_FRACTION * USUAL_ROWS[known]:
        return None
    return f"{count} rows: the smallest public {known} file has {USUAL_ROWS[known]}"


def _constant_gaps(time_s: FloatArray) -> str | None:
    if len(time_s) < MIN_JUDGED:
        return None
    gaps_s = np.diff(time_s)
    middle_s = float(np.median(gaps_s))
    same = float(np.mean(np.abs(gaps_s - middle_s) <= 1e-6 * middle_s + 1e-9))
    if middle_s <= 0 or same < 0.99:
        return None
    return f"{same:.0%} of the gaps between arrivals are {middle_s:g} s: no users come like that"


def _cycling(model: NDArray[np.int32] | None) -> str | None:
    if model is None or len(model) < MIN_JUDGED:
        return None
    for period in range(2, MAX_CYCLE + 1):
        cycle = model[:period]
        if len(set(cycle.tolist())) > 1 and np.array_equal(np.resize(cycle, len(model)), model):
            return f"the models take turns, every {period} rows the same again"
    return None
