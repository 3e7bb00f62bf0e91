"""What a machine draws and what that costs at its site, compiled."""

from __future__ import annotations

from typing import Any

from wattbench.routing.compiled import inlined, kernel


@kernel
def roll(w: Any, m: Any) -> None:
    """Put the values of the site's series at ``now_s`` in force."""
    while m.now_s >= m.change_s:
        m.segment += 1
        m.change_s = w.changes[m.site, m.segment + 1]
    m.price = w.rates[m.site, m.segment, 0]
    m.carbon = w.rates[m.site, m.segment, 1]
    m.per_watt = w.shares[m.site, m.kind, m.segment]


@inlined
def pay(w: Any, m: Any, from_s: float, to_s: float, joules: float) -> None:
    """Price energy that flows evenly from the present segment on."""
    if to_s <= m.change_s:
        m.usd += joules * m.price
        m.gco2e += joules * m.carbon
    else:
        _pay_by_segment(w, m, from_s, to_s, joules)


@kernel
def _pay_by_segment(w: Any, m: Any, from_s: float, to_s: float, joules: float) -> None:
    segment, watts = m.segment, joules / (to_s - from_s)
    while from_s < to_s:
        end_s = min(to_s, w.changes[m.site, segment + 1])
        m.usd += watts * (end_s - from_s) * w.rates[m.site, segment, 0]
        m.gco2e += watts * (end_s - from_s) * w.rates[m.site, segment, 1]
        from_s = end_s
        segment += 1


@kernel
def rest(w: Any, m: Any, kind: Any, to_s: float) -> bool:
    """Idle, then sleep, from ``now_s`` to ``to_s``; whether it sleeps at the end."""
    asleep_s = m.now_s + kind.sleep_after_s
    awake_until_s = min(asleep_s, to_s)
    idle = kind.idle_watts * (awake_until_s - m.now_s)
    m.idle += idle
    pay(w, m, m.now_s, awake_until_s, idle)
    m.now_s = awake_until_s
    if m.now_s >= m.change_s:
        roll(w, m)
    if to_s <= asleep_s:
        return False
    sleep = kind.sleep_watts * (to_s - asleep_s)
    m.sleep += sleep
    pay(w, m, asleep_s, to_s, sleep)
    m.now_s = to_s
    if m.now_s >= m.change_s:
        roll(w, m)
    return True
