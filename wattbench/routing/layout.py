"""The simulator's memory: records of fixed layout for requests, machines and kinds of machine.

One record of 64 bytes per request and one per machine: what belongs together lies together, so
that an event touches few cache lines. The kernels see them as one tuple of arrays, ``World``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

PRIORITIES = 3
"""Queues of each machine, the most urgent first."""

WAITING, SERVED, CANCELLED, REFUSED, MOVED = range(5)
"""What became of a request; one that moved has its first token and goes to a decode machine."""

BOTH, PREFILL, DECODE = range(3)
"""A pool's role."""

ON, DOWN, COMING = range(3)
"""A machine's power: routable; drained or off; being provisioned."""

NO_LOAD = 2**62
"""In the tree of loads, of what must not win."""

TURNS, NEXT, LOOK, CHOICE, MOVED_CHOICE, SEGMENTS = range(6)
"""Places of the counts: turns to come, next of the trace, the router's last look and choices, and
from there on the segment of each site's series at the last decision."""

QUEUE_LIMIT, BY_TREE, SEED, SIGNALS_S, OWN_SENDS, OPTION = range(6)
"""Places of the router's dials; a policy's own options follow from the last one on."""

REQUEST = np.dtype(
    [
        ("reach_s", "f8"),  # when it reaches its machine; before that, when it arrives
        ("first_s", "f8"),  # its first token
        ("finish_s", "f8"),  # its last token
        ("wait_s", "f8"),  # before it is admitted its patience, then how long it waited
        ("input", "i4"),
        ("output", "i4"),
        ("generated", "i4"),  # tokens it had when it was preempted
        ("next", "i4"),  # behind it in its queue, or landing with it
        ("order", "i4"),  # of its admission, on its machine
        ("machine", "i4"),
        ("guess", "i4"),  # what the router takes its answer's length for
        ("preempted", "i2"),
        ("priority", "i1"),
        ("status", "i1"),
    ],
    align=True,
)

MACHINE = np.dtype(
    [
        ("now_s", "f8"),  # its last boundary
        ("end_s", "f8"),  # of the step with prompts that is running; infinite: none
        ("bound_s", "f8"),  # no request leaves it before
        ("change_s", "f8"),  # its site's next change of cap, price or carbon
        ("per_watt", "f8"),  # 1 / (cap − busy watts); 0: no cap
        ("price", "f8"),  # USD per joule at the site's meter
        ("carbon", "f8"),  # gCO2e per joule at the site's meter
        ("context", "i8"),  # tokens of the decoding requests, with the coming step's
        ("reserved", "i8"),  # KV memory beyond them [tokens]
        ("steps", "i8"),
        ("batch", "i4"),  # decoding requests
        ("kind", "i4"),
        ("partial", "i4"),  # the request whose prompt is partly done; −1: none
        ("partial_done", "i4"),
        ("landing", "i4"),  # requests whose prompt ends with the running step; −1: none
        ("filling", "i4"),  # requests with a prompt under way
        ("waiting", "i4"),
        ("outstanding", "i4"),
        ("admitted", "i4"),
        ("site", "i4"),
        ("segment", "i4"),  # of its site's series
        ("blocked", "i4"),  # 1: this boundary preempted, so it admits nobody
        ("load", "i8"),  # prompts and guessed answers of all outstanding requests [tokens]
        ("full", "i8"),  # prompts and answers of all outstanding requests [tokens]
        ("busy_s", "f8"),
        ("fixed", "f8"),  # joules of empty steps, without busy watts
        ("decode", "f8"),
        ("prefill", "f8"),
        ("idle", "f8"),
        ("sleep", "f8"),
        ("wake", "f8"),
        ("off", "f8"),
        ("transfer", "f8"),
        ("ready_s", "f8"),  # when its provisioning ends
        ("power", "i8"),
        ("usd", "f8"),
        ("gco2e", "f8"),
        ("score", "f8"),  # what the policy made of it for the last arrival
    ],
    align=True,
)

KIND = np.dtype(
    [
        ("max_batch", "i8"),
        ("max_step", "i8"),
        ("capacity", "i8"),
        ("charge", "i8"),  # KV tokens of each request on top of its context
        ("role", "i8"),
        ("whole", "i8"),  # 1: prompt and answer are reserved on admission
        ("busy_watts", "f8"),
        ("idle_watts", "f8"),
        ("sleep_watts", "f8"),
        ("sleep_after_s", "f8"),
        ("wake_s", "f8"),
        ("wake_joules", "f8"),
        ("floor_s", "f8"),  # no step is shorter
        ("context", "f8", (3,)),  # c of the three lanes
        ("attended", "f8", (3,)),  # d of the three lanes
    ],
    align=True,
)

SHELF = np.dtype(
    [
        ("tokens", "i8"),  # text of a block
        ("capacity", "i8"),  # blocks; 0: none is kept
        ("mask", "i8"),  # chains less one; a power of two of them
        ("first", "i8"),  # slot
        ("used", "i8"),  # slots
        ("newest", "i8"),
        ("oldest", "i8"),
    ],
    align=True,
)


LEG = np.dtype([("reach_s", "f8"), ("wait_s", "f8"), ("machine", "i8")])
"""Of a request that moved: when it reached the machine of its prompt, its wait there, and which."""

SCALE = np.dtype(
    [
        ("every_s", "f8"),  # infinite: the pool does not scale
        ("target", "f8"),  # outstanding requests for each machine
        ("provision_s", "f8"),
        ("provision_joules", "f8"),
        ("off_watts", "f8"),
        ("min_count", "i8"),
        ("first", "i8"),  # its machines: from the first to before the last
        ("last", "i8"),
        ("done", "i8"),  # decisions so far
    ],
    align=True,
)


class World(NamedTuple):
    """All that the kernels work on.

    Shapes, with n requests, m machines, k kinds, s sites: ``requests`` (n,), ``machines`` (m,),
    ``kinds`` (k,); ``table`` (k, largest batch + 1, 6): F + D of the three lanes at each batch,
    then D alone; ``knots`` (k, 3, most knots, 3): x, F and its slope from there on; ``heaps``
    (m, largest batch): decoding requests by their last step, packed as step · 2³² + request;
    ``queues`` (m, priorities, 2): first and last; ``changes`` (s, most segments + 1): their
    instants; ``rates`` (s, most segments, 2): price and carbon per joule; ``shares`` (s, k, most
    segments): ``per_watt`` of each kind; ``child`` (n,), ``sibling`` (n,), ``think_s``
    (n,): the first turn that follows each, the next one that follows the same, the pause before
    each (−1: it follows none); ``due_s``, ``due`` (n,): a heap of turns, and of requests that
    move, to come; ``counts`` (5 + s,); ``calendar`` and ``loads``: trees over the machines of when
    each is due and what the router sees that it has to do; ``scales`` (k,): each pool's
    autoscaling; ``scale_s`` (1,): its next instant, over all pools; ``legs`` (n,), or empty where
    no pool has a role; ``transfer`` (3,): seconds, seconds per token and joules per token of a
    transfer. Where prefixes are kept, else empty: ``shelves`` (m,) and ``slots`` (most blocks that
    all keep, 5) of `prefixes`; ``prompts`` (n + 1, 2): where each prompt's ``blocks`` begin, and
    how many of its tokens were found kept.
    """

    requests: Any
    machines: Any
    kinds: Any
    table: Any
    knots: Any
    heaps: Any
    queues: Any
    changes: Any
    rates: Any
    shares: Any
    child: Any
    sibling: Any
    think_s: Any
    due_s: Any
    due: Any
    counts: Any
    calendar: Any
    loads: Any
    scales: Any
    scale_s: Any
    legs: Any
    transfer: Any
    shelves: Any
    slots: Any
    prompts: Any
    blocks: Any
