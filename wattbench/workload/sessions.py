"""From a workload to sessions, reproducible from a seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from wattbench.core.load import InferenceRequest, Message
from wattbench.workload.arrivals import Schedule, TraceLoop
from wattbench.workload.format import SessionShape, Workload
from wattbench.workload.lengths import Distribution
from wattbench.workload.prompts import PromptFile

SCHEDULE_START = 2**20
"""Number of the first session of a schedule. Those of its warm-up count down from it, so that the
schedule is the same however long the warm-up took, and no prompt is sent in both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One question: what it adds to the conversation, the longest answer [tokens], a seed."""

    messages: tuple[Message, ...]
    output_tokens: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One user's visit; a turn's prompt is the conversation so far and its new text."""

    index: int
    turns: tuple[Turn, ...]
    think_time_s: float

    def request(
        self, turn_index: int, request_index: int, history: tuple[Message, ...], *, ignore_eos: bool
    ) -> InferenceRequest:
        """The call for one turn, given what was said before."""
        turn = self.turns[turn_index]
        return InferenceRequest(
            index=request_index,
            session_index=self.index,
            turn_index=turn_index,
            messages=(*history, *turn.messages),
            max_output_tokens=turn.output_tokens,
            ignore_eos=ignore_eos,
            seed=turn.seed,
        )


def sessions(workload: Workload, seed: int) -> Iterator[Session]:
    """Sessions without end; for a schedule, those of its warm-up."""
    if isinstance(workload.arrivals, Schedule):
        return _sessions(workload, seed, range(SCHEDULE_START - 1, -1, -1))
    return _sessions(workload, seed, itertools.count())


def scheduled_sessions(workload: Workload, seed: int) -> Iterator[Session]:
    """Sessions of a schedule, of a trace in the order of its arrivals."""
    return _sessions(workload, seed, itertools.count(SCHEDULE_START))


def _sessions(workload: Workload, seed: int, indices: Iterable[int]) -> Iterator[Session]:
    """Session k is the same whatever was drawn before it."""
    shape = workload.session
    prefix = _shared_prefix(shape, seed)
    trace = workload.arrivals.trace if isinstance(workload.arrivals, TraceLoop) else None
    order = _order(shape.prompts, seed)
    for index in indices:
        rng = np.random.default_rng((seed, index))
        if shape.prompts is not None:
            turns = _given_turns(shape, rng, order[index % len(order)])
        elif trace is not None and trace.lengths_tokens is not None:
            rows = len(trace.lengths_tokens)
            row = index - SCHEDULE_START if index >= SCHEDULE_START else rng.integers(rows)
            input_tokens, output_tokens = trace.lengths_tokens[row % rows].tolist()
            turns = (_turn(input_tokens, output_tokens, rng, prefix),)
        else:
            turns = _drawn_turns(shape, rng, prefix)
        yield Session(index=index, turns=turns, think_time_s=shape.think_time_s)


def _shared_prefix(shape: SessionShape, seed: int) -> tuple[Message, ...]:
    """The system message of all sessions of a run; another run has another text."""
    if not shape.shared_prefix_tokens:
        return ()
    text_seed = int(np.random.default_rng((seed, 0x5F5F)).integers(2**31))
    return (Message(role="system", tokens=shape.shared_prefix_tokens, seed=text_seed),)


def _order(prompts: PromptFile | None, seed: int) -> list[int]:
    """In which order the entries of a file are sent; all of them before one comes again."""
    if prompts is None:
        return []
    rng = np.random.default_rng((seed, 0x0DE2))
    return [int(index) for index in rng.permutation(len(prompts.visits))]


def _given_turns(shape: SessionShape, rng: np.random.Generator, entry: int) -> tuple[Turn, ...]:
    assert shape.prompts is not None
    visit = shape.prompts.visits[entry]
    return tuple(
        Turn(
            messages=messages,
            output_tokens=visit.output_tokens or _drawn(shape.output_tokens, rng),
            seed=int(rng.integers(2**31)),
        )
        for messages in visit.turns
    )


def _drawn_turns(
    shape: SessionShape, rng: np.random.Generator, prefix: tuple[Message, ...]
) -> tuple[Turn, ...]:
    return tuple(
        _turn(
            _drawn(shape.input_tokens, rng),
            _drawn(shape.output_tokens, rng),
            rng,
            prefix if number == 0 else (),
        )
        for number in range(shape.turns.draw(rng))
    )


def _drawn(length: Distribution | None, rng: np.random.Generator) -> int:
    assert length is not None, "the workload demands it"
    return length.draw(rng)


def _turn(
    input_tokens: int, output_tokens: int, rng: np.random.Generator, before: tuple[Message, ...]
) -> Turn:
    seed = int(rng.integers(2**31))
    question = Message(role="user", tokens=input_tokens, seed=seed)
    return Turn(messages=(*before, question), output_tokens=output_tokens, seed=seed)
