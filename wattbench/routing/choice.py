"""The built-in policies, compiled; what each does is told in `policies`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from wattbench.routing.calendar import smallest
from wattbench.routing.compiled import inlined, kernel
from wattbench.routing.layout import (
    BY_TREE,
    CHOICE,
    DECODE,
    MOVED,
    MOVED_CHOICE,
    ON,
    OPTION,
    SEED,
    SEGMENTS,
)
from wattbench.routing.leaving import answer
from wattbench.routing.prefixes import leading
from wattbench.routing.scores import (
    asleep,
    cap_use,
    first_token_s,
    latency_s,
    marginal_joules,
)

ROUND_ROBIN, RANDOM, LEAST_OUTSTANDING, POWER_OF_TWO, TOKEN_JSQ, BUSIEST = range(6)
PREDICTED_LATENCY, MARGINAL_ENERGY, COST, CARBON, POWER_CAPPED, CONSOLIDATE, THRESHOLD = range(
    6, 13
)
PREFIX_AFFINITY = 13
FAR = 1e30
NEAR = 1e-9
"""Scores of rounded arithmetic that differ by no more than this part of the best are equal."""


@kernel
def uniform(seed: int, r: int, turn: int) -> float:
    """A number in [0, 1) that depends on nothing but its arguments.

    The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) over their sum by odd constants.
    """
    z = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(r + 1) * np.uint64(0xD1B54A32D192ED03)
    z += np.uint64(turn + 1) * np.uint64(0x8CB92BA72F3D8DD7)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@inlined
def holds(w: Any, m: Any, r: int) -> bool:
    """Whether a machine is routable, of the right role, and can ever hold the request."""
    q, kind = w.requests[r], w.kinds[m.kind]
    if m.power != ON or (kind.role == DECODE) != (q.status == MOVED):
        return False
    return q.input + answer(kind, q) + kind.charge <= kind.capacity


@inlined
def choose(w: Any, seen: Any, r: int, policy: int, dials: Any) -> int:
    """The machine for an arrival, by what the router has ``seen`` of the machines."""
    if policy == LEAST_OUTSTANDING and dials[BY_TREE] == 1:
        return smallest(w.loads)
    if policy == PREFIX_AFFINITY:
        return _by_prefix(w, seen, r, dials[OPTION])
    if policy == ROUND_ROBIN:
        last = MOVED_CHOICE if w.requests[r].status == MOVED else CHOICE
        i = _from(w, seen, r, (w.counts[last] + 1) % seen.shape[0])
        w.counts[last] = i
        return i
    if policy == RANDOM:
        return _draw(w, seen, r, uniform(int(dials[SEED]), r, 0), -1)
    if policy == POWER_OF_TWO:
        first = _draw(w, seen, r, uniform(int(dials[SEED]), r, 0), -1)
        second = _draw(w, seen, r, uniform(int(dials[SEED]), r, 1), first)
        fewer = seen[second].outstanding - seen[first].outstanding
        return second if fewer < 0 or (fewer == 0 and second < first) else first
    return _best(w, seen, r, policy, dials)


@kernel
def _best(w: Any, seen: Any, r: int, policy: int, dials: Any) -> int:
    """The machine with the lowest score."""
    look_up(w, w.requests[r].reach_s)
    best, lowest = -1, math.inf
    for i in range(seen.shape[0]):
        seen[i].score = math.inf
        if holds(w, seen[i], r):
            score = _score(w, seen[i], w.requests[r], policy, dials)
            seen[i].score = score
            if score < lowest:
                best, lowest = i, score
    if PREDICTED_LATENCY <= policy <= POWER_CAPPED:
        return _least_busy(w, seen, best, lowest + NEAR * abs(lowest))
    return best


@inlined
def look_up(w: Any, now_s: float) -> None:
    """Bring the router's segments of the sites' series to the moment of a decision."""
    for s in range(w.changes.shape[0]):
        while w.changes[s, w.counts[SEGMENTS + s] + 1] <= now_s:
            w.counts[SEGMENTS + s] += 1


@inlined
def _least_busy(w: Any, seen: Any, best: int, limit: float) -> int:
    """Of the machines with a score up to a limit the one with the fewest requests."""
    found = best
    for i in range(seen.shape[0]):
        if seen[i].score <= limit:
            fewer = seen[i].outstanding - seen[found].outstanding
            if fewer < 0 or (fewer == 0 and i < found):
                found = i
    return found


@kernel
def _by_prefix(w: Any, seen: Any, r: int, spread: float) -> int:
    """The machine that keeps most of the prompt, unless it has too much to do."""
    best, most, least = -1, -1, -1
    for i in range(seen.shape[0]):
        if holds(w, seen[i], r):
            count = leading(w, i, r)
            if least < 0 or seen[i].outstanding < seen[least].outstanding:
                least = i
            if count > most or (count == most and seen[i].outstanding < seen[best].outstanding):
                best, most = i, count
    if seen[best].outstanding > seen[least].outstanding + spread:
        return least
    return best


@inlined
def _from(w: Any, seen: Any, r: int, i: int) -> int:
    """The first machine from ``i`` on that can hold the request."""
    while not holds(w, seen[i], r):
        i = (i + 1) % seen.shape[0]
    return i


@kernel
def _draw(w: Any, seen: Any, r: int, draw: float, but: int) -> int:
    """Machine ⌊draw · n⌋ of the n that can hold the request, without ``but`` if others can."""
    count = 0
    for i in range(seen.shape[0]):
        count += i != but and holds(w, seen[i], r)
    if count == 0:
        return but
    place = int(draw * count)
    for i in range(seen.shape[0]):
        if i != but and holds(w, seen[i], r):
            if place == 0:
                return i
            place -= 1
    return but


@inlined
def _score(w: Any, m: Any, q: Any, policy: int, dials: Any) -> float:
    """What a policy seeks the least of."""
    kind = w.kinds[m.kind]
    if policy == TOKEN_JSQ:
        return float(m.load)
    if policy == BUSIEST:
        return float(-m.outstanding)
    if policy == PREDICTED_LATENCY:
        return latency_s(w, m, kind, q)
    if policy == POWER_CAPPED:
        return cap_use(w, m, kind)
    if policy == CONSOLIDATE:
        return _packing(m, kind, q, dials[OPTION])
    if policy == THRESHOLD:
        return _by_length(m, q, dials)
    if policy in (MARGINAL_ENERGY, COST, CARBON):
        return _marginal(w, m, kind, q, policy, dials[OPTION])
    return float(m.outstanding)


@inlined
def _marginal(w: Any, m: Any, kind: Any, q: Any, policy: int, guard_s: float) -> float:
    wait_s = first_token_s(w, m, kind, q)
    if wait_s > guard_s:
        return FAR * (1.0 + wait_s)
    joules = marginal_joules(w, m, kind, q)
    if policy == COST:
        return joules * w.rates[m.site, w.counts[SEGMENTS + m.site], 0]
    if policy == CARBON:
        return joules * w.rates[m.site, w.counts[SEGMENTS + m.site], 1]
    return joules


@inlined
def _packing(m: Any, kind: Any, q: Any, fill: float) -> float:
    if m.outstanding + 1 > fill * kind.max_batch:
        return FAR + m.outstanding
    if m.outstanding == 0 and asleep(m, kind, q.reach_s):
        return FAR / 2
    return float(-m.outstanding)


@inlined
def _by_length(m: Any, q: Any, dials: Any) -> float:
    """Short requests to one pool, all others to another, the least outstanding of it."""
    short = q.input <= dials[OPTION] and q.guess <= dials[OPTION + 1]
    pool = dials[OPTION + 2] if short else dials[OPTION + 3]
    return m.outstanding + (0.0 if m.kind == pool else FAR)
