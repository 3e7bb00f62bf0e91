"""Generated traces: seeded, and the same bytes for the same numbers."""

from __future__ import annotations

import numpy as np

from wattbench.traces.arrivals import Process, check_rate, diurnal, gamma, poisson
from wattbench.traces.lengths import Lengths
from wattbench.traces.record import Trace, TraceSource, with_digest
from wattbench.traces.talk import Talk, block_numbers, grown, turns

MAX_REQUESTS = 10**9
MAX_SEED = 2**63 - 1


def poisson_trace(
    rate_per_s: float, count: int, lengths: Lengths, seed: int = 0, *, talk: Talk | None = None
) -> Trace:
    """Requests that come at random, each independent of the others.

    Args:
        rate_per_s: Requests per second in the long run, all turns counted [1/s].
        count: How many requests.
        lengths: How long they are; of a session, the new text of each turn and its answer.
        seed: Makes everything; arrivals, lengths and sessions each have a stream of their own.
        talk: Sessions and system prompts; None: requests have nothing in common.

    Raises:
        ValueError: For a number that nobody means.
    """
    talk = talk or Talk()
    process = poisson(_starts_per_s(rate_per_s, talk))
    return _generated(f"poisson,rate={rate_per_s:.12g}", process, count, lengths, seed, talk)


def gamma_trace(
    rate_per_s: float,
    count: int,
    lengths: Lengths,
    seed: int = 0,
    *,
    cv_ratio: float,
    talk: Talk | None = None,
) -> Trace:
    """Requests whose gaps scatter by ``cv_ratio`` of their mean: above 1 they come in bursts.

    The other arguments are those of ``poisson_trace``.
    """
    talk = talk or Talk()
    process = gamma(_starts_per_s(rate_per_s, talk), cv_ratio)
    name = f"gamma,rate={rate_per_s:.12g},cv={cv_ratio:.12g}"
    return _generated(name, process, count, lengths, seed, talk)


def diurnal_trace(  # noqa: PLR0913
    rate_per_s: float,
    count: int,
    lengths: Lengths,
    seed: int = 0,
    *,
    peak_to_mean_ratio: float,
    period_s: float = 86_400.0,
    talk: Talk | None = None,
) -> Trace:
    """Requests whose rate goes through a day, lowest at time 0 and highest half a period later.

    The other arguments are those of ``poisson_trace``; with sessions it is their starts that go
    through the day.
    """
    talk = talk or Talk()
    process = diurnal(_starts_per_s(rate_per_s, talk), peak_to_mean_ratio, period_s)
    name = (
        f"diurnal,rate={rate_per_s:.12g},peak_to_mean={peak_to_mean_ratio:.12g},"
        f"period_s={period_s:.12g}"
    )
    return _generated(name, process, count, lengths, seed, talk)


def _starts_per_s(rate_per_s: float, talk: Talk) -> float:
    """How often a session begins."""
    check_rate(rate_per_s)
    return rate_per_s / talk.mean_turns_count


def _generated(
    name: str, process: Process, count: int, lengths: Lengths, seed: int, talk: Talk
) -> Trace:
    if not 1 <= count <= MAX_REQUESTS:
        raise ValueError(f"count = {count} is not from 1 to {MAX_REQUESTS:g}")
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed = {seed} is not from 0 to 2**63 - 1")
    pair = lengths.draw(np.random.default_rng((seed, 0x1E)), count)
    parent = think_s = start = blocks = None
    changes: tuple[str, ...] = ()
    if talk.has_turns:
        found = turns(process, talk, count, seed)
        arrival_s, session = found.arrival_s, found.session
        parent, think_s = found.parent, found.think_s
        pair = grown(pair, parent, talk.prefix_tokens)
        changes = ("later turns are written as if answers took no time",)
    else:
        arrival_s = process(count, np.random.default_rng((seed, 0xA1)))
        session = np.arange(count)
        if talk.prefix_tokens:
            pair = grown(pair, np.full(count, -1, dtype=np.int32), talk.prefix_tokens)
    if talk.has_turns or talk.prefix_tokens:
        start, blocks = block_numbers(pair[0], session, talk, seed)
    said = ",".join(part for part in (lengths.words(), talk.words()) if part)
    return with_digest(
        Trace(
            arrival_s=arrival_s,
            input_tokens=pair[0],
            output_tokens=pair[1],
            parent=parent,
            think_s=think_s,
            block_start=start,
            blocks=blocks,
            block_tokens=None if blocks is None else talk.block_tokens,
            source=TraceSource(
                name=f"{name},count={count},{said},seed={seed}",
                format="generated",
                sha256="",
                licence=None,
                changes=changes,
            ),
        )
    )
