"""Records about load: what is asked of an engine and what came back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from wattbench.core.energy import FloatArray

Role = Literal["system", "user", "assistant"]
Phase = Literal["warmup", "measured"]
TokenSource = Literal["usage", "engine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One part of a prompt: given text, or a synthetic text of a given length.

    Attributes:
        role: Who speaks.
        text: The text, or None for a synthetic one.
        tokens: Length of the synthetic text [tokens]; ignored when ``text`` is given.
        seed: Makes the synthetic text; equal seeds and lengths give equal texts.
    """

    role: Role
    text: str | None = None
    tokens: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceRequest:
    """One call of a model.

    Attributes:
        index: Number of the request within its run.
        session_index: Session that the request belongs to.
        turn_index: Position within the session, from 0.
        messages: The prompt, oldest message first.
        max_output_tokens: Longest answer [tokens].
        ignore_eos: Whether the engine must produce exactly ``max_output_tokens``.
        seed: Seed of sampling in the engine, where it samples.
    """

    index: int
    session_index: int
    turn_index: int
    messages: tuple[Message, ...]
    max_output_tokens: int
    ignore_eos: bool = True
    seed: int = 0

    @property
    def synthetic_input_tokens(self) -> int:
        """Tokens asked for by the synthetic messages."""
        return sum(message.tokens for message in self.messages if message.text is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the engine itself counted for one request.

    Attributes:
        input_tokens: Prompt length [tokens], None if the engine does not tell.
        output_tokens: Answer length [tokens], None if the engine does not tell.
        cached_tokens: Part of the prompt served from a prefix cache, None if unknown.
        finish_reason: The engine's word for why the answer ended.
        reasoning_tokens: Part of the answer that is thinking, None if unknown.
    """

    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None = None
    finish_reason: str | None = None
    reasoning_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenChunk:
    """What one step of an engine gives; the runner stamps it.

    Attributes:
        tokens: Tokens in this chunk; None if the engine does not tell (its ``usage``, given
            with the last chunk, then divides by chunks); 0 for a chunk without an answer in it.
        text: The text of the chunk, None if the engine gives only ids.
        usage: The engine's own counts, with the last chunk.
        arrived_s: When it came out of a socket [s, clock of the running event loop], so that a
            chunk of one stream does not wait for its stamp until those of the others are read;
            None where there is no socket: the runner stamps it when it gets it.
    """

    tokens: int | None
    text: str | None = None
    usage: Usage | None = None
    arrived_s: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestResult:
    """Everything recorded about one request; all times on the run clock.

    Attributes:
        request: What was asked.
        phase: Sent during warm-up or in the measured phase.
        queued_s: When the load wanted to send it [s].
        sent_s: When it was sent [s]; waiting for a slot lies between the two.
        end_s: When the last chunk or the failure arrived [s].
        chunk_s: Shape (n,), arrival of each chunk that carried an answer [s].
        chunk_tokens: Shape (n,), tokens per chunk; NaN where the engine does not tell.
        input_tokens: Prompt tokens, None if nobody counted.
        output_tokens: Answer tokens, None if nobody counted.
        cached_tokens: Prompt tokens served from a cache, None if unknown.
        reasoning_tokens: Answer tokens that are thinking, None if unknown.
        tokens_source: Who counted the answer: the server's ``usage`` or the engine in process.
        output_bytes: UTF-8 length of the answer, None if the engine gives no text.
        finish_reason: The engine's word for the end.
        error_class: None for a success, else the class of the failure.
        error_text: None for a success, else the failure in words.
    """

    request: InferenceRequest
    phase: Phase
    queued_s: float
    sent_s: float
    end_s: float
    chunk_s: FloatArray
    chunk_tokens: FloatArray
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    tokens_source: TokenSource | None = None
    output_bytes: int | None = None
    finish_reason: str | None = None
    error_class: str | None = None
    error_text: str | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the answer arrived whole."""
        return self.error_class is None

    @property
    def emitted_tokens(self) -> FloatArray:
        """Shape (n,): tokens per chunk, scaled so that they add up to ``output_tokens``.

        A chunk is not a token: where the engine counts only at the end, each chunk gets an
        equal share of its count; where a failure left no count, what the chunks told stands.
        """
        weights = np.where(np.isnan(self.chunk_tokens), 1.0, self.chunk_tokens)
        if self.output_tokens is None or weights.sum() == 0:
            return weights
        return np.asarray(weights * (self.output_tokens / weights.sum()))
