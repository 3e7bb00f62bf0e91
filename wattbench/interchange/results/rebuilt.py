"""A request rebuilt from what another tool keeps of it: instants, and a count of tokens."""

from __future__ import annotations

import numpy as np

from wattbench.core.energy import FloatArray
from wattbench.core.load import InferenceRequest

MAX_ANSWER_TOKENS = 10_000_000
"""No answer is longer; a larger count is a broken file, and would fill the memory [tokens]."""


def spread_s(first_s: float, last_s: float, chunk_count: int) -> FloatArray:
    """Instants of chunks of which only the first and the last are known: even between them.

    TTFT, TPOT and E2E follow exactly; a gap is none that was measured (``gaps_spread``).

    Args:
        first_s: When the first came [s].
        last_s: When the last came [s].
        chunk_count: How many there were, at least one.
    """
    if chunk_count == 1:
        return np.array([first_s])
    return np.linspace(first_s, last_s, chunk_count)


def asked(
    index: int, output_tokens: int | None, *, session_index: int | None = None, turn_index: int = 0
) -> InferenceRequest:
    """What was asked, as far as a file tells it: never the prompt.

    Args:
        index: Number of the request within the file.
        output_tokens: Tokens of the answer, None if unknown.
        session_index: Its conversation; one of its own if None.
        turn_index: Its position in the conversation.
    """
    return InferenceRequest(
        index=index,
        session_index=index if session_index is None else session_index,
        turn_index=turn_index,
        messages=(),
        max_output_tokens=output_tokens or 0,
        ignore_eos=False,
    )
