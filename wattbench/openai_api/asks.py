"""Bodies of requests for an answer, checked field by field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["text_completion", "chat.completion"]
DEFAULT_MAX_TOKENS: dict[Kind, int] = {"text_completion": 16, "chat.completion": 256}
ROLES = ("system", "user", "assistant")


class BadRequest(Exception):
    """A request that an OpenAI server would refuse with HTTP 400."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One validated request for an answer.

    Attributes:
        kind: Which of the two endpoints it came to.
        messages: Roles and texts; one of the role ``user`` for a plain prompt.
        token_ids: The prompt as ids in place of ``messages``, None for text.
        max_tokens: Longest answer [tokens].
        min_tokens: Shortest answer [tokens].
        ignore_eos: Whether the answer goes on to ``max_tokens``.
        stream: Whether it is streamed.
        include_usage: Whether the stream ends with counts.
    """

    kind: Kind
    messages: tuple[tuple[str, str], ...]
    token_ids: tuple[int, ...] | None
    max_tokens: int
    min_tokens: int
    ignore_eos: bool
    stream: bool
    include_usage: bool

    @property
    def words(self) -> int:
        """Length of the prompt, a word or a given id being a token; at least 1."""
        if self.token_ids is not None:
            return len(self.token_ids)
        return max(1, sum(len(text.split()) for _, text in self.messages))


def understand(body: Any, kind: Kind, model: str) -> Ask:
    """Check the JSON of a request.

    Args:
        body: The parsed body.
        kind: The endpoint it came to.
        model: The one model that is served.

    Raises:
        BadRequest: With the field, its value and what would do.
    """
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    if body.get("model", model) != model:
        raise BadRequest(f"the model is {model!r}, not {body['model']!r}")
    if body.get("n") not in (None, 1):
        raise BadRequest("n must be 1")
    names = [n for n in ("max_tokens", "max_completion_tokens") if body.get(n) is not None]
    asked = body[names[0]] if names else DEFAULT_MAX_TOKENS[kind]
    max_tokens = _positive(asked, names[0] if names else "max_tokens")
    stream = body.get("stream") or False
    if not isinstance(stream, bool):
        raise BadRequest(f"stream must be true or false, not {stream!r}")
    options = body.get("stream_options")
    messages, token_ids = _chat(body) if kind == "chat.completion" else _prompt(body)
    return Ask(
        kind=kind,
        messages=messages,
        token_ids=token_ids,
        max_tokens=max_tokens,
        min_tokens=min(max_tokens, _positive(body.get("min_tokens") or 1, "min_tokens")),
        ignore_eos=bool(body.get("ignore_eos")),
        stream=stream,
        include_usage=isinstance(options, dict) and bool(options.get("include_usage")),
    )


def _positive(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadRequest(f"{name} must be a whole number from 1, not {value!r}")
    return value


def _chat(body: dict[str, Any]) -> tuple[tuple[tuple[str, str], ...], None]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list that is not empty")
    found = []
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            raise BadRequest(f"messages[{number}] must be an object with role and content")
        role = message.get("role", "user")
        found.append((role if role in ROLES else "user", _text(message.get("content"))))
    return tuple(found), None


def _prompt(
    body: dict[str, Any],
) -> tuple[tuple[tuple[str, str], ...], tuple[int, ...] | None]:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
        return (), tuple(prompt)
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise BadRequest("prompt must be one text, or a list of token ids")
    return (("user", _clean(prompt)),), None


def _text(content: Any) -> str:
    """The text of a message; of one in parts, all its texts."""
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(text for text in texts if isinstance(text, str))
    return _clean(content) if isinstance(content, str) else ""


def _clean(text: str) -> str:
    """JSON can hold half a surrogate pair, which no tokenizer takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
