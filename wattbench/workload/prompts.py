"""Prompts of the user's own: JSON lines, or a ShareGPT file, used as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import PrivateAttr

from wattbench.core.load import Message, Role
from wattbench.workload.files import DataFile
from wattbench.workload.lengths import MAX_LENGTH_TOKENS

_ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
_SHAREGPT: Mapping[str, Role] = {
    "human": "user",
    "user": "user",
    "system": "system",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One entry of a file of prompts.

    Attributes:
        turns: What each turn adds to the conversation.
        output_tokens: Longest answer [tokens], None if the file does not say.
    """

    turns: tuple[tuple[Message, ...], ...]
    output_tokens: int | None = None


class PromptFile(DataFile):
    """Texts to send, in place of synthetic ones."""

    _visits: tuple[Visit, ...] = PrivateAttr()

    def _take(self, text: str) -> None:
        self._visits = tuple(read_prompts(text, self.file))

    @property
    def visits(self) -> tuple[Visit, ...]:
        """What the file holds."""
        return self._visits


def read_prompts(text: str, name: str) -> list[Visit]:
    """Visits from the text of a file.

    Raises:
        ValueError: With the name, the line or entry, and what is wrong there.
    """
    whole = text.lstrip().startswith("[")
    visits = list(_sharegpt(text, name) if whole else _json_lines(text, name))
    if not visits:
        raise ValueError(f"{name}: there is no prompt in it")
    return visits


def _json_lines(text: str, name: str) -> Iterator[Visit]:
    for line, written in enumerate(text.split("\n"), start=1):
        if not written.strip():
            continue
        place = f"{name} line {line}"
        entry = _parsed(written, place)
        if not isinstance(entry, dict) or ("prompt" in entry) == ("messages" in entry):
            raise ValueError(f"{place}: must be an object with either prompt or messages")
        if "prompt" in entry:
            asked = [{"role": "user", "content": entry["prompt"]}]
            messages = _messages(asked, place)
        else:
            messages = _messages(entry["messages"], place)
        yield Visit(turns=(messages,), output_tokens=_limit(entry.get("output_tokens"), place))


def _messages(value: Any, place: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{place}: messages must be a list of objects with role and content")
    found = []
    for number, one in enumerate(value):
        here = f"{place}: messages.{number}"
        if not isinstance(one, dict) or str(one.get("role")) not in _ROLES:
            raise ValueError(f"{here}.role must be one of {', '.join(_ROLES)}")
        content = _text(one.get("content"), f"{here}.content")
        found.append(Message(role=_ROLES[one["role"]], text=content))
    if found[-1].role != "user":
        raise ValueError(f"{place}: the last message must be the user's, for it is to be answered")
    return tuple(found)


def _limit(value: Any, place: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_LENGTH_TOKENS:
        raise ValueError(
            f"{place}: output_tokens = {str(value)[:40]} is no whole number from 1 to "
            f"{MAX_LENGTH_TOKENS}"
        )
    return value


def _sharegpt(text: str, name: str) -> Iterator[Visit]:
    """Conversations whose questions are asked anew; one without a question is left out."""
    for number, entry in enumerate(_parsed(text, name)):
        place = f"{name} entry {number}"
        said = entry.get("conversations") if isinstance(entry, dict) else None
        if not isinstance(said, list):
            raise ValueError(f"{place}: must be an object with a list of conversations")
        turns: list[tuple[Message, ...]] = []
        pending: list[Message] = []
        for index, one in enumerate(said):
            message = _sharegpt_message(one, f"{place}: conversations.{index}")
            if message is None or message.role == "assistant":
                continue
            pending.append(message)
            if message.role == "user":
                turns.append(tuple(pending))
                pending = []
        if turns:
            yield Visit(turns=tuple(turns))


def _sharegpt_message(one: Any, place: str) -> Message | None:
    """One part of a conversation, None if it is blank, as some of the published ones are."""
    if not isinstance(one, dict) or str(one.get("from")) not in _SHAREGPT:
        raise ValueError(f"{place}.from must be one of {', '.join(_SHAREGPT)}")
    if not isinstance(one.get("value"), str):
        raise ValueError(f"{place}.value must be a text")
    if not one["value"].strip():
        return None
    return Message(role=_SHAREGPT[one["from"]], text=_text(one["value"], f"{place}.value"))


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{place} must be a text, and not a blank one")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{place} has half of a surrogate pair, which no encoding has") from error
    return value


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: is no JSON: {error}") from error
