"""Sessions of several turns and shared system prompts, laid over a process of arrivals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wattbench.core.energy import FloatArray
from wattbench.traces.arrivals import Process
from wattbench.traces.lengths import Pair
from wattbench.traces.record import MAX_LENGTH_TOKENS

MAX_BLOCKS = 2**31 - 1
MAX_DRAWN_RATIO, MIN_LIMIT_TURNS = 50, 10**7
"""Most turns that are drawn for one that is wanted, and a number that is always drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """What requests have in common.

    Attributes:
        mean_turns_count: Mean number of turns of a session, geometric from 1 on; 1: each request
            stands alone.
        think_s: Mean pause between the end of an answer and the next turn, exponential [s].
        prefix_tokens: System prompt before every session, on top of the lengths drawn.
        prefix_groups: How many different system prompts there are; sessions take one at random.
        block_tokens: Text in one block of a prefix cache [tokens].
    """

    mean_turns_count: float = 1.0
    think_s: float = 0.0
    prefix_tokens: int = 0
    prefix_groups: int = 1
    block_tokens: int = 16

    def __post_init__(self) -> None:
        for name, least, most in (
            ("mean_turns_count", 1, 1000),
            ("think_s", 0, 1e7),
            ("prefix_tokens", 0, MAX_LENGTH_TOKENS - 1),
            ("prefix_groups", 1, 10**6),
            ("block_tokens", 1, 10**6),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name} = {value} is not from {least} to {most:g}")

    @property
    def has_turns(self) -> bool:
        """Whether there are sessions of more than one turn."""
        return self.mean_turns_count > 1

    def words(self) -> str:
        """For the name of a trace; nothing where requests have nothing in common."""
        said = []
        if self.has_turns:
            said.append(f"turns={self.mean_turns_count:g},think_s={self.think_s:g}")
        if self.prefix_tokens:
            said.append(f"prefix={self.prefix_tokens},prefix_groups={self.prefix_groups}")
        if said:
            said.append(f"block_tokens={self.block_tokens}")
        return ",".join(said)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turns:
    """Requests in order of arrival.

    Attributes:
        arrival_s: As if answers took no time [s].
        session: Number of the session of each.
        parent: Index of the turn before, −1 for a first one.
        think_s: Pause before each, 0 for a first one [s].
    """

    arrival_s: FloatArray
    session: NDArray[np.int64]
    parent: NDArray[np.int32]
    think_s: FloatArray


def turns(process: Process, talk: Talk, count: int, seed: int) -> Turns:
    """The first ``count`` requests of sessions that begin as a process says.

    Sessions are drawn until the last one begins after all of these requests, so that the end of the
    trace is as busy as its middle.

    Raises:
        ValueError: If that takes far more turns than are wanted.
    """
    sessions = int(count / talk.mean_turns_count * 1.1) + 16
    while True:
        sessions = min(sessions, count)
        if sessions * talk.mean_turns_count > max(MAX_DRAWN_RATIO * count, MIN_LIMIT_TURNS):
            raise ValueError(
                f"sessions of {talk.mean_turns_count:g} turns with pauses of {talk.think_s:g} s "
                f"last far longer than {count} requests take to come; take more requests, fewer "
                f"turns or shorter pauses"
            )
        start_s = process(sessions, np.random.default_rng((seed, 0xA1)))
        rng = np.random.default_rng((seed, 0x7A))
        length = rng.geometric(1 / talk.mean_turns_count, sessions)
        begin = np.cumsum(length) - length
        session = np.repeat(np.arange(sessions), length)
        think_s = rng.exponential(talk.think_s, len(session))
        think_s[begin] = 0.0
        waited_s = np.cumsum(think_s)
        arrival_s = start_s[session] + (waited_s - waited_s[begin][session])
        if sessions == count or int((arrival_s <= start_s[-1]).sum()) >= count:
            break
        sessions *= 2
    # Sorted by time, and where times are equal by turn, so that a parent comes first.
    order = np.argsort(arrival_s, kind="stable")[:count]
    place = np.full(len(arrival_s), -1, dtype=np.int32)
    place[order] = np.arange(count, dtype=np.int32)
    before = np.concatenate([[-1], place[:-1]]).astype(np.int32)
    before[begin] = -1
    return Turns(
        arrival_s=arrival_s[order],
        session=session[order],
        parent=before[order],
        think_s=think_s[order],
    )


def grown(lengths: Pair, parent: NDArray[np.int32], prefix_tokens: int) -> Pair:
    """Prompts that carry the system prompt and what was said before.

    Raises:
        ValueError: If a conversation grows beyond what any engine takes.
    """
    new, answer = lengths
    prompt = new.astype(np.int64)
    prompt[parent < 0] += prefix_tokens
    # Turn by turn: a prompt is that of the turn before, its answer, and the new text.
    depth_rows = np.flatnonzero(parent >= 0)
    ready = parent < 0
    while len(depth_rows):
        now = ready[parent[depth_rows]]
        rows = depth_rows[now]
        prompt[rows] += prompt[parent[rows]] + answer[parent[rows]]
        ready[rows] = True
        depth_rows = depth_rows[~now]
    if prompt.max() > MAX_LENGTH_TOKENS:
        raise ValueError(
            f"a conversation grows to {prompt.max()} tokens, beyond {MAX_LENGTH_TOKENS}; take "
            f"fewer turns or shorter ones"
        )
    return prompt.astype(np.int32), answer


def block_numbers(
    input_tokens: NDArray[np.int32], session: NDArray[np.int64], talk: Talk, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Where each request's full blocks start, and their numbers.

    The blocks of a system prompt are those of its group; the one that it ends in belongs to the
    session already.

    Raises:
        ValueError: If there are more blocks than numbers for them.
    """
    counts = (input_tokens // talk.block_tokens).astype(np.int64)
    start = np.concatenate([[0], np.cumsum(counts)])
    shared = talk.prefix_tokens // talk.block_tokens
    sessions = int(session.max()) + 1
    longest = np.zeros(sessions, dtype=np.int64)
    np.maximum.at(longest, session, np.maximum(counts - shared, 0))
    own = np.cumsum(longest) - longest + shared * talk.prefix_groups
    if max(start[-1], own[-1] + longest[-1]) > MAX_BLOCKS:
        raise ValueError(
            f"{start[-1]} blocks of {talk.block_tokens} tokens are more than {MAX_BLOCKS}; take a "
            f"larger block_tokens"
        )
    group = np.random.default_rng((seed, 0x96)).integers(talk.prefix_groups, size=sessions)
    at = np.arange(start[-1], dtype=np.int32)
    at -= np.repeat(start[:-1].astype(np.int32), counts)
    in_session = (own[session] - shared).astype(np.int32)
    in_group = (group[session] * shared).astype(np.int32)
    numbers = np.where(at < shared, np.repeat(in_group, counts), np.repeat(in_session, counts))
    return start, numbers + at
