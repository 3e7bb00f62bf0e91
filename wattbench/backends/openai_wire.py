"""What the OpenAI API has on the wire: requests out, the events of an answer in. Does no I/O."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from wattbench.core.errors import BackendError
from wattbench.core.load import TokenChunk, Usage

if TYPE_CHECKING:
    from wattbench.backends.sse import Event
    from wattbench.core.load import InferenceRequest, Message
    from wattbench.core.run import Json

Api = Literal["chat", "completions"]
PATHS: dict[Api, str] = {"chat": "chat/completions", "completions": "completions"}

# Short words that common tokenizers know whole, so that one word is about one token.
_WORD_LINES = """
able about above after again air all also and any arm art ask back ball base bear been best bird
blue boat body book both box boy bring build burn but buy call came car care case cold come cook
cost country cover cry cut dark day deep did door down draw dream drive dry each ear early earth
east eat end even ever eye face fact fall far farm fast few field fill find fine fire fish five
floor fly food foot for form four free friend from full game gave girl give glass gold gone good
grass great green ground grow half hand hard have head hear heart heat help here high hill hold
home hope horse hot hour house how ice idea iron job join jump just keep kind king know lake land
large last late laugh lead leaf learn left less letter life light like line list live long look
lost love low made make many map mark may mean meet milk mind money moon more most move much music
name near need never new next night north note now old once one only open other our over own page
park part pass past path plan play
"""
WORDS = tuple(_WORD_LINES.split())

# Some servers cut the text of a token in two: that many more chunks than tokens are believed.
_SPLIT_FRACTION = 0.5

# The answer proper comes first; servers name the thinking before it in either of two ways.
_TEXT_FIELDS = ("content", "reasoning_content", "reasoning", "text")


class Lengths(Protocol):
    """Makes texts of as many tokens as a message asks for."""

    def text(self, message: Message, *, opens: bool) -> str:
        """The text of a message; ``opens`` if it is the first of its request."""


class StreamError(BackendError):
    """An answer broke off, is malformed, or carries an error of the server."""


class WrongUsage(BackendError):
    """A whole answer came with a count of tokens that it cannot have."""


def message_text(message: Message) -> str:
    """The text of a message; a synthetic one has a word per token, drawn by its seed.

    Example:
        >>> from wattbench.core.load import Message
        >>> message_text(Message(role="user", tokens=3, seed=1))
        'bring most look'
    """
    if message.text is not None:
        return message.text
    words = random.Random(message.seed)  # noqa: S311 – makes a prompt, keeps no secret
    return " ".join(words.choices(WORDS, k=message.tokens))


def request_body(
    request: InferenceRequest, model: str, api: Api, lengths: Lengths | None = None
) -> dict[str, Json]:
    """The JSON of a request that every server of the API understands.

    Args:
        request: What is asked.
        model: Name that the server knows the model by.
        api: Endpoint that it is for.
        lengths: How synthetic texts get their length; None for a word a token.
    """
    texts = [
        message_text(message) if lengths is None else lengths.text(message, opens=index == 0)
        for index, message in enumerate(request.messages)
    ]
    body: dict[str, Json] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": request.max_output_tokens,
        "temperature": 0,
    }
    if api == "completions":
        return body | {"prompt": "\n".join(texts)}
    return body | {
        "messages": [
            {"role": message.role, "content": text}
            for message, text in zip(request.messages, texts, strict=True)
        ]
    }


def exact_length(request: InferenceRequest) -> dict[str, Json]:
    """The two fields, unknown to some servers, that fix the length of an answer."""
    return {"ignore_eos": True, "min_tokens": request.max_output_tokens}


def quoted(text: str, limit: int) -> str:
    """The first ``limit`` characters of what a server said, on one line."""
    line = " ".join(text.split())
    return repr(line[:limit] + "…" * (len(line) > limit))


@dataclass(slots=True, kw_only=True)
class Answer:
    """One answer while it comes in.

    Attributes:
        redacted: Clears a text of the server of secrets before it gets into an error.
        max_output_tokens: The longest answer that was asked for [tokens].
        done: Whether the server has said ``[DONE]``.
    """

    redacted: Callable[[str], str]
    max_output_tokens: int
    done: bool = False
    _finish_reason: str | None = None
    _usage: dict[str, Json] = field(default_factory=dict)
    _chunks: int = 0

    def take(self, event: Event, arrived_s: float | None = None) -> TokenChunk | None:
        """Read one event.

        Args:
            event: The event.
            arrived_s: When it came out of the socket [s, loop clock].

        Returns:
            Its text as a chunk of unknown length, None if it has none: an opening chunk with
            nothing but a role must not count as the first token.

        Raises:
            StreamError: If the event is malformed or an error.
        """
        if self.done or not event.data:
            return None
        if event.data[0] != "{" and event.done:
            self.done = True
            return None
        choice = self._choice(event)
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            self._finish_reason = reason
        text = _text(choice)
        if not text:
            return None
        self._chunks += 1
        return TokenChunk(tokens=None, text=text, arrived_s=arrived_s)

    def last(self, content_type: str, arrived_s: float | None = None) -> TokenChunk:
        """The chunk that ends the answer, with the counts of the server.

        Args:
            content_type: Of the response, for the error.
            arrived_s: When the end came out of the socket [s, loop clock].

        Raises:
            StreamError: If the server never said that the answer has ended.
            WrongUsage: If it counts more tokens than were asked for, or far fewer than chunks
                with text came.
        """
        if not self.done and self._finish_reason is None:
            raise StreamError(
                f"stream ended early: {self._chunks} chunks of {content_type} with text, but "
                "neither a finish_reason nor [DONE]"
            )
        details = self._usage.get("prompt_tokens_details")
        usage = Usage(
            input_tokens=_count(self._usage, "prompt_tokens"),
            output_tokens=_count(self._usage, "completion_tokens"),
            cached_tokens=_count(details, "cached_tokens"),
            finish_reason=self._finish_reason,
            reasoning_tokens=_count(
                self._usage.get("completion_tokens_details"), "reasoning_tokens"
            ),
        )
        self._check_count(usage.output_tokens)
        return TokenChunk(tokens=0, usage=usage, arrived_s=arrived_s)

    def _check_count(self, output_tokens: int | None) -> None:
        # 0 and less is how servers say that they do not count: unknown, not wrong.
        if output_tokens is None or output_tokens <= 0:
            return
        least = self._chunks * (1 - _SPLIT_FRACTION)
        # One more than asked for: some count the end-of-text token beside the limit.
        if not least <= output_tokens <= self.max_output_tokens + 1:
            raise WrongUsage(
                f"usage counts {output_tokens} output tokens, but {self._chunks} chunks with text "
                f"came and at most {self.max_output_tokens} tokens were asked for"
            )

    def _choice(self, event: Event) -> dict[str, Json]:
        """The first choice of an event, empty if it has none; keeps the counts beside it."""
        try:
            content = _parsed(event.data)
        except (ValueError, RecursionError) as error:
            raise self._error("malformed JSON in the stream", event) from error
        if not isinstance(content, dict):
            raise self._error("malformed event in the stream", event)
        if event.name == "error" or content.get("error") or content.get("object") == "error":
            raise self._error("the server reports an error in the stream", event)
        if isinstance(content.get("usage"), dict):
            self._usage = content["usage"]
        choices = content.get("choices") or [{}]
        if not isinstance(choices, list) or not isinstance(choices[0], dict):
            raise self._error("malformed event in the stream", event)
        return choices[0]

    def _error(self, what: str, event: Event) -> StreamError:
        return StreamError(f"{what}: {quoted(self.redacted(event.data), 200)}")


def _text(choice: dict[str, Json]) -> str:
    """The text of a choice, empty if it has none."""
    delta = choice.get("delta")
    source = delta if isinstance(delta, dict) else choice
    for name in _TEXT_FIELDS:
        text = source.get(name)
        if text and isinstance(text, str):
            return _clean(text)
    return _clean(_call(source)) if "tool_calls" in source else ""


def _clean(text: str) -> str:
    """JSON can hold half a surrogate pair, which is no text and has no length in UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _parsed(data: str) -> Any:
    """JSON, by the fast reader where that takes it: it refuses half a surrogate pair."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return json.loads(data)


def _call(delta: dict[str, Json]) -> str:
    """What a delta says of a tool to call: name and arguments are answer tokens like any other."""
    calls = delta.get("tool_calls")
    listed = calls if isinstance(calls, list) else []
    functions = [call.get("function") for call in listed if isinstance(call, dict)]
    parts = [
        function.get(name)
        for function in functions
        if isinstance(function, dict)
        for name in ("name", "arguments")
    ]
    return "".join(part for part in parts if isinstance(part, str))


def _count(counts: Json, name: str) -> int | None:
    """A count of tokens, None if the server does not tell."""
    count = counts.get(name) if isinstance(counts, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) else None
