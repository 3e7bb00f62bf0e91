"""How long prompts and answers are: a small closed set."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wattbench.traces.record import MAX_LENGTH_TOKENS, Trace

MAX_SIGMA = 5.0
Pair = tuple[NDArray[np.int32], NDArray[np.int32]]


def _check(name: str, tokens: float) -> None:
    if not 1 <= tokens <= MAX_LENGTH_TOKENS:
        raise ValueError(f"{name} = {tokens} is not from 1 to {MAX_LENGTH_TOKENS} tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedLengths:
    """Every request alike."""

    input_tokens: int
    output_tokens: int

    def __post_init__(self) -> None:
        _check("input_tokens", self.input_tokens)
        _check("output_tokens", self.output_tokens)

    def draw(self, rng: np.random.Generator, count: int) -> Pair:
        """Prompts and answers [tokens]."""
        prompt = np.full(count, self.input_tokens, dtype=np.int32)
        return prompt, np.full(count, self.output_tokens, dtype=np.int32)

    def words(self) -> str:
        """For the name of a trace."""
        return f"input={self.input_tokens},output={self.output_tokens}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LognormalLengths:
    """Most requests short, a few long; prompt and answer of one request do not depend.

    Attributes:
        input_tokens: Mean of the prompts, before they are rounded and cut to 1 … 10⁷.
        output_tokens: Mean of the answers.
        sigma_ratio: Standard deviation of the logarithm of both, a pure number.
    """

    input_tokens: float
    output_tokens: float
    sigma_ratio: float

    def __post_init__(self) -> None:
        _check("input_tokens", self.input_tokens)
        _check("output_tokens", self.output_tokens)
        if not 0 <= self.sigma_ratio <= MAX_SIGMA:
            raise ValueError(f"sigma_ratio = {self.sigma_ratio} is not from 0 to {MAX_SIGMA:g}")

    def draw(self, rng: np.random.Generator, count: int) -> Pair:
        """Prompts and answers [tokens]."""
        return self._drawn(self.input_tokens, rng, count), self._drawn(
            self.output_tokens, rng, count
        )

    def _drawn(self, mean: float, rng: np.random.Generator, count: int) -> NDArray[np.int32]:
        drawn = rng.standard_normal(count)
        drawn *= self.sigma_ratio
        drawn += math.log(mean) - self.sigma_ratio**2 / 2
        np.exp(drawn, out=drawn)
        np.rint(drawn, out=drawn)
        return np.clip(drawn, 1, MAX_LENGTH_TOKENS, out=drawn).astype(np.int32)

    def words(self) -> str:
        """For the name of a trace."""
        return (
            f"input={self.input_tokens:g},output={self.output_tokens:g},sigma={self.sigma_ratio:g}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthsOf:
    """Pairs of prompt and answer drawn from another trace, with replacement."""

    trace: Trace

    def draw(self, rng: np.random.Generator, count: int) -> Pair:
        """Prompts and answers [tokens]."""
        rows = rng.integers(len(self.trace), size=count)
        return self.trace.input_tokens[rows], self.trace.output_tokens[rows]

    def words(self) -> str:
        """For the name of a trace."""
        return f"lengths of {self.trace.source.name} (sha256 {self.trace.source.sha256[:12]})"


Lengths = FixedLengths | LognormalLengths | LengthsOf
