"""Trees whose root is the smallest of many values, compiled: who is due next, who has least to do.

A tree over m values is an array of 2·s, s the power of two that holds them: the leaves from s on,
each inner node the smaller of the two below it. Of equals the lowest number wins.
"""

from __future__ import annotations

from typing import Any

from wattbench.routing.compiled import inlined


@inlined
def settle(tree: Any, i: int, value: float) -> None:
    """Give leaf ``i`` a value."""
    node = (tree.shape[0] >> 1) + i
    tree[node] = value
    while node > 1:
        node >>= 1
        smaller = min(tree[2 * node], tree[2 * node + 1])
        if tree[node] == smaller:
            return
        tree[node] = smaller


@inlined
def raise_up(tree: Any) -> None:
    """Make every inner node anew from the leaves."""
    for node in range((tree.shape[0] >> 1) - 1, 0, -1):
        tree[node] = min(tree[2 * node], tree[2 * node + 1])


@inlined
def smallest(tree: Any) -> int:
    """The leaf that holds the root's value."""
    node, leaves = 1, tree.shape[0] >> 1
    while node < leaves:
        node = 2 * node if tree[2 * node] <= tree[2 * node + 1] else 2 * node + 1
    return node - leaves
