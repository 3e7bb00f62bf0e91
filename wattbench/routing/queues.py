"""Queues and heaps of a machine, compiled: linked through the requests, nothing is allocated."""

from __future__ import annotations

from typing import Any

from wattbench.routing.compiled import inlined


@inlined
def enter_queue(w: Any, i: int, m: Any, r: int) -> None:
    """Append a request to its priority's queue."""
    q = w.requests[r]
    ends = w.queues[i, q.priority]
    q.next = -1
    if ends[0] < 0:
        ends[0] = r
    else:
        w.requests[ends[1]].next = r
    ends[1] = r
    m.waiting += 1


@inlined
def return_to_queue(w: Any, i: int, m: Any, r: int) -> None:
    """Put a preempted request at the front of its queue."""
    q = w.requests[r]
    ends = w.queues[i, q.priority]
    q.next = ends[0]
    if ends[0] < 0:
        ends[1] = r
    ends[0] = r
    m.waiting += 1


@inlined
def leave_queue(w: Any, i: int, m: Any, priority: int) -> None:
    """Take the head of a queue out."""
    w.queues[i, priority, 0] = w.requests[w.queues[i, priority, 0]].next
    m.waiting -= 1


@inlined
def push(heap: Any, place: int, key: int) -> None:
    """Add a key to a min-heap of ``place`` keys, or to the path above a place."""
    while place > 0:
        above = (place - 1) >> 1
        if heap[above] <= key:
            break
        heap[place] = heap[above]
        place = above
    heap[place] = key


@inlined
def remove(heap: Any, size: int, place: int) -> None:
    """Take the key at ``place`` out of a min-heap of ``size`` keys."""
    size -= 1
    key = heap[size]
    if place > 0 and place < size and heap[(place - 1) >> 1] > key:
        push(heap, place, key)
        return
    while True:
        below = 2 * place + 1
        if below >= size:
            break
        if below + 1 < size and heap[below + 1] < heap[below]:
            below += 1
        if heap[below] >= key:
            break
        heap[place] = heap[below]
        place = below
    heap[place] = key
