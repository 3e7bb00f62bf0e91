"""From a workload to sessions and arrival times, both reproducible from a seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wattbench.core.load import InferenceRequest, Message
from wattbench.workload.arrivals import OpenLoop
from wattbench.workload.format import SessionShape


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


def sessions(shape: SessionShape, seed: int) -> Iterator[Session]:
    """Sessions without end. Session k is the same whatever was drawn before it."""
    prefix = _shared_prefix(shape, seed)
    for index in itertools.count():
        rng = np.random.default_rng((seed, index))
        turns = tuple(
            _drawn_turn(shape, rng, prefix if number == 0 else ())
            for number in range(shape.turns.draw(rng))
        )
        yield Session(index=index, turns=turns, think_time_s=shape.think_time_s)


def _shared_prefix(shape: SessionShape, seed: int) -> tuple[Message, ...]:
    """The system message of all sessions of a run; another run has another text."""
    if not shape.shared_prefix_tokens:
        return ()
    text_seed = int(np.random.default_rng((seed, 0x5F5F)).integers(2**31))
    return (Message(role="system", tokens=shape.shared_prefix_tokens, seed=text_seed),)


def _drawn_turn(shape: SessionShape, rng: np.random.Generator, before: tuple[Message, ...]) -> Turn:
    input_tokens, output_tokens = shape.input_tokens.draw(rng), shape.output_tokens.draw(rng)
    seed = int(rng.integers(2**31))
    question = Message(role="user", tokens=input_tokens, seed=seed)
    return Turn(messages=(*before, question), output_tokens=output_tokens, seed=seed)


def arrival_times_s(arrivals: OpenLoop, rate_per_s: float, seed: int) -> Iterator[float]:
    """Instants at which sessions arrive [s from the start of the load], without end."""
    rng = np.random.default_rng((seed, 0xA1))
    now_s = 0.0
    while True:
        mean_gap_s = 1.0 / rate_per_s
        now_s += mean_gap_s if arrivals.kind == "constant" else float(rng.exponential(mean_gap_s))
        yield now_s
