"""The text of an answer piece by piece, while its tokens come out of an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

_HALF_CHARACTER = "\N{REPLACEMENT CHARACTER}"
Decode = Callable[[list[list[int]]], list[str]]
"""Texts of several sequences of token ids at once."""


@dataclass(slots=True)
class Told:
    """How much of an answer's text is out.

    Attributes:
        context_tokens: Where the piece before the next one began; a piece is decoded with the one
            before, because the spaces of a word can depend on it.
        count: Tokens whose text is out.
    """

    context_tokens: int = 0
    count: int = 0


def next_pieces(answers: Sequence[tuple[Told, list[int], bool]], decode: Decode) -> list[str]:
    """What each answer's new tokens add to its text, decoded in one call.

    Args:
        answers: For each what is out, all its token ids so far, and whether it has ended. What
            is out is brought up to date.
        decode: The tokenizer's.

    Returns:
        A text for each; empty where the bytes of a character are not all there yet.
    """
    spans = [
        ids[told.context_tokens : end] for told, ids, _ in answers for end in (told.count, None)
    ]
    texts = decode(spans)
    pieces = []
    for (told, ids, ended), before, now in zip(answers, texts[::2], texts[1::2], strict=True):
        piece = now[len(before) :]
        if piece.endswith(_HALF_CHARACTER) and not ended:
            piece = ""
        else:
            told.context_tokens, told.count = told.count, len(ids)
        pieces.append(piece)
    return pieces
