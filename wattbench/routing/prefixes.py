"""Prefixes that a machine has computed and keeps, compiled: blocks, least recently used first out.

A machine has a shelf: slots in a list from the newest to the oldest, found by the number of their
block through chains. Numbers of a prompt follow each other, so a number's last bits choose its
chain: what is looked up together then lies together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wattbench.core.errors import UsageError
from wattbench.routing.compiled import inlined, kernel
from wattbench.routing.fleet import Fleet
from wattbench.routing.layout import SHELF

BLOCK, CHAIN, NEWER, OLDER, HEAD = range(5)
"""Columns of a slot: its block, the slots after it in its chain and in the list (−1: none), and,
of another chain, the one with the slot's place on the shelf, the first slot."""
START, HIT = range(2)
"""Columns of a prompt: where its blocks begin, and how many of its tokens were found kept."""


@inlined
def _find(w: Any, shelf: Any, block: int) -> int:
    """The slot that keeps a block; −1: none."""
    slot = w.slots[shelf.first + (block & shelf.mask), HEAD]
    while slot >= 0 and w.slots[slot, BLOCK] != block:
        slot = w.slots[slot, CHAIN]
    return slot


@inlined
def _take_out(w: Any, shelf: Any, slot: int) -> None:
    """Take a slot out of the list."""
    newer, older = w.slots[slot, NEWER], w.slots[slot, OLDER]
    if newer >= 0:
        w.slots[newer, OLDER] = older
    else:
        shelf.newest = older
    if older >= 0:
        w.slots[older, NEWER] = newer
    else:
        shelf.oldest = newer


@inlined
def _put_first(w: Any, shelf: Any, slot: int) -> None:
    """Make a slot, which is not in the list, the newest one."""
    w.slots[slot, NEWER] = -1
    w.slots[slot, OLDER] = shelf.newest
    if shelf.newest >= 0:
        w.slots[shelf.newest, NEWER] = slot
    else:
        shelf.oldest = slot
    shelf.newest = slot


@inlined
def _vacate(w: Any, shelf: Any) -> int:
    """A slot for a new block: one that was never used, or that of the oldest block."""
    if shelf.used < shelf.capacity:
        shelf.used += 1
        return shelf.first + shelf.used - 1
    slot = shelf.oldest
    _take_out(w, shelf, slot)
    place = shelf.first + (w.slots[slot, BLOCK] & shelf.mask)
    if w.slots[place, HEAD] == slot:
        w.slots[place, HEAD] = w.slots[slot, CHAIN]
    else:
        before = w.slots[place, HEAD]
        while w.slots[before, CHAIN] != slot:
            before = w.slots[before, CHAIN]
        w.slots[before, CHAIN] = w.slots[slot, CHAIN]
    return slot


@kernel
def leading(w: Any, i: int, r: int) -> int:
    """How many of a prompt's first blocks a machine keeps."""
    if w.shelves.shape[0] == 0 or w.shelves[i].capacity == 0:
        return 0
    shelf, first, end = w.shelves[i], w.prompts[r, START], w.prompts[r + 1, START]
    for j in range(first, end):
        if _find(w, shelf, w.blocks[j]) < 0:
            return j - first
    return end - first


@kernel
def reuse(w: Any, i: int, r: int) -> int:
    """Use what is kept of a prompt that is admitted: the tokens that need not be computed."""
    shelf, q = w.shelves[i], w.requests[r]
    if shelf.capacity == 0:
        return 0
    count = 0
    for j in range(w.prompts[r, START], w.prompts[r + 1, START]):
        slot = _find(w, shelf, w.blocks[j])
        if slot < 0:
            break
        _take_out(w, shelf, slot)
        _put_first(w, shelf, slot)
        count += 1
    tokens = min(count * shelf.tokens, q.input)
    if tokens == q.input + q.generated:
        tokens = (q.input - 1) // shelf.tokens * shelf.tokens
    if q.preempted == 0:
        w.prompts[r, HIT] = tokens
    return int(tokens)


@kernel
def keep_landing(w: Any, i: int) -> None:
    """Keep the prompts that are complete now, in the order in which they were admitted."""
    m = w.machines[i]
    if w.shelves[i].capacity == 0:
        return
    before, r = -1, m.landing
    while r >= 0:  # the list has the last one first: turn it round
        following = w.requests[r].next
        w.requests[r].next = before
        before, r = r, following
    m.landing = before
    r = before
    while r >= 0:
        _keep(w, w.shelves[i], r)
        r = w.requests[r].next


@inlined
def _keep(w: Any, shelf: Any, r: int) -> None:
    for j in range(w.prompts[r, START], w.prompts[r + 1, START]):
        block = w.blocks[j]
        slot = _find(w, shelf, block)
        if slot >= 0:
            _take_out(w, shelf, slot)
        else:
            slot = _vacate(w, shelf)
            place = shelf.first + (block & shelf.mask)
            w.slots[slot, BLOCK] = block
            w.slots[slot, CHAIN] = w.slots[place, HEAD]
            w.slots[place, HEAD] = slot
        _put_first(w, shelf, slot)


def shelves(fleet: Fleet, start: Any, blocks: Any, block_tokens: int | None) -> dict[str, Any]:
    """The arrays of `World` for prefixes; all empty where no machine keeps any, or none are told.

    Raises:
        UsageError: If what all machines keep together is beyond all memory.
    """
    kept = [pool.machine.prefix_cache_tokens // (block_tokens or 1) for pool in fleet.pools]
    if blocks is None or block_tokens is None or not len(blocks) or not any(kept):
        return {
            "shelves": np.empty(0, dtype=SHELF),
            "slots": np.empty((0, 5), dtype=np.int32),
            "prompts": np.empty((0, 2), dtype=np.int64),
            "blocks": np.empty(0, dtype=np.int32),
        }
    count = int(blocks.max()) + 1  # no machine comes to keep more
    capacity = np.repeat([min(each, count) for each in kept], [p.count for p in fleet.pools])
    if capacity.sum() >= 2**31:
        raise UsageError(
            f"the machines keep {capacity.sum()} blocks of prefixes together; make "
            f"prefix_cache_tokens smaller, for less than 2^31 blocks"
        )
    found = np.zeros(len(capacity), dtype=SHELF)
    found["tokens"] = block_tokens
    found["capacity"] = capacity
    found["mask"] = [(1 << max(0, int(each).bit_length() - 1)) - 1 for each in capacity]
    found["first"] = np.cumsum(capacity) - capacity
    found["newest"] = found["oldest"] = -1
    return {
        "shelves": found,
        "slots": np.full((int(capacity.sum()), 5), -1, dtype=np.int32),
        "prompts": np.stack((start, np.zeros_like(start)), axis=1),
        "blocks": blocks,
    }
