"""Answers as the API has them: events of a stream, or one body."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from wattbench.openai_api.asks import Kind

DONE = b"data: [DONE]\n\n"
"""What ends a stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerWriter:
    """Puts one answer into words of the API.

    Attributes:
        kind: The endpoint.
        number: Of the request; it makes the answer's id.
        model: Name of the model.
        created_unix_s: When the server was started [s].
    """

    kind: Kind
    number: int
    model: str
    created_unix_s: int
    _opening: bytes = field(init=False)

    def __post_init__(self) -> None:
        """What each event begins with, made once: a server writes thousands of events a second."""
        opening = b"data: " + json.dumps(self._head(chunk=True)).encode()[:-1]
        object.__setattr__(self, "_opening", opening + b', "choices": [')

    def role(self) -> bytes:
        """The event that opens a chat."""
        return self._event('"delta": {"role": "assistant", "content": ""}', None)

    def text(self, text: str, finish_reason: str | None = None) -> bytes:
        """An event with a piece of the answer, the last one with the reason of the end."""
        said = f'"text": {json.dumps(text)}'
        if self.kind == "chat.completion":
            said = f'"delta": {{"content": {json.dumps(text)}}}'
        return self._event(said, finish_reason)

    def usage(self, input_tokens: int, output_tokens: int, cached_tokens: int | None) -> bytes:
        """The event with the counts."""
        counts = json.dumps(usage(input_tokens, output_tokens, cached_tokens))
        return self._opening + b'], "usage": ' + counts.encode() + b"}\n\n"

    def error(self, message: str) -> bytes:
        """The event of an answer that fails after it has begun."""
        return b"data: " + json.dumps(refusal(message, 500)).encode() + b"\n\n"

    def whole(self, text: str, finish_reason: str | None, counts: dict[str, Any]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
        if self.kind == "chat.completion":
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        return self._head(chunk=False) | {"choices": [choice], "usage": counts}

    def _event(self, said: str, finish_reason: str | None) -> bytes:
        reason = json.dumps(finish_reason)
        choice = f'{{"index": 0, "logprobs": null, {said}, "finish_reason": {reason}}}]}}\n\n'
        return self._opening + choice.encode()

    def _head(self, *, chunk: bool) -> dict[str, Any]:
        chat = self.kind == "chat.completion"
        return {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{self.number}",
            "object": "chat.completion.chunk" if chat and chunk else self.kind,
            "created": self.created_unix_s,
            "model": self.model,
        }


def usage(input_tokens: int, output_tokens: int, cached_tokens: int | None) -> dict[str, Any]:
    """The counts of an answer; what is not known is left out."""
    counts: dict[str, Any] = {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }
    if cached_tokens is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
    return counts


def refusal(message: str, status: int) -> dict[str, Any]:
    """The body of an error."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "code": status}}


def models(name: str, created_unix_s: int, max_model_tokens: int | None = None) -> dict[str, Any]:
    """The body of ``GET /v1/models`` for one model."""
    model: dict[str, Any] = {"id": name, "object": "model", "created": created_unix_s}
    model["owned_by"] = "wattbench"
    if max_model_tokens is not None:
        model["max_model_len"] = max_model_tokens
    return {"object": "list", "data": [model]}
