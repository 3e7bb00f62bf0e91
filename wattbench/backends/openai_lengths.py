"""Prompts of an exact length: what a word, a message and a request cost a server in tokens.

Synthetic prompts are made of words, and a word is about one token. How many it really is, is found
out once, when the backend opens, so that no request waits for it:

- where the server has ``/tokenize`` (vLLM, llama-server), each word is counted, at the start of a
  text and within one; prompts then come out exact where the tokenizer splits at spaces;
- else the counts of three short requests give the tokens per word; prompts are then right on
  average.

In both cases three requests of one token tell what the template adds. They also show whether the
server takes the fields that fix the length of an answer.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from wattbench.backends.http_client import BrokenAnswer, HttpClient, NoConnection
from wattbench.backends.openai_wire import WORDS, Api, message_text
from wattbench.core.load import Message
from wattbench.core.run import Json

LengthSource = Literal["tokenize", "usage", "words"]
Setting = Literal["auto", "tokenize", "usage", "off"]

Ask = Callable[[str, Mapping[str, Json]], Awaitable[tuple[int, Json]]]
"""Posts JSON to ``tokenize`` or ``generate``; gives the status and the JSON that came back."""

PIECES = (*WORDS, *"abcdefghijklmnopqrstuvwxyz")
"""What texts are made of; letters, often one token where no word is, only fill up at the end."""

_REPEATS = 8
_SAMPLE = range(0, len(WORDS), 4)
"""The words of the short requests, of all initials; where only counts tell, they stand for all."""
_TIMES = 3
_AT_ONCE = 8
_NO_ANSWER = 599  # stands for a request that got no answer


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLengths:
    """How texts are made so that a prompt has as many tokens as were asked for.

    Attributes:
        source: How lengths were made: by the server's tokenizer, by its counts, or a word a token.
        first_tokens: Cost of each of ``PIECES`` at the start of a text [tokens].
        next_tokens: Cost of each of ``PIECES`` after another word [tokens].
        request_tokens: What a request costs beside its messages [tokens].
        message_tokens: What a message costs beside its words [tokens].
        ignores_eos: Whether the server took the fields that fix the length.
        probes: Requests that were sent to find this out.
    """

    source: LengthSource = "words"
    first_tokens: Sequence[float] = ()
    next_tokens: Sequence[float] = ()
    request_tokens: float = 0.0
    message_tokens: float = 0.0
    ignores_eos: bool = True
    probes: int = 0

    def text(self, message: Message, *, opens: bool) -> str:
        """The text of a message.

        Args:
            message: The message; a given text stays as it is.
            opens: Whether it is the first of its request, which carries what a request costs.
        """
        if message.text is not None or self.source == "words":
            return message_text(message)
        left = message.tokens - self.message_tokens - (self.request_tokens if opens else 0.0)
        draw = random.Random(message.seed)  # noqa: S311 – makes a prompt, keeps no secret
        chosen: list[str] = []
        costs = self.first_tokens
        cheapest = min(range(len(PIECES)), key=lambda index: self.next_tokens[index])
        while not chosen or left >= self.next_tokens[cheapest] / 2:
            index = draw.randrange(len(WORDS))
            if costs[index] > left:  # the last words fill up exactly
                index = cheapest
            chosen.append(PIECES[index])
            left -= costs[index]
            costs = self.next_tokens
        return " ".join(chosen)

    def sample_tokens(self) -> float:
        """Cost of the sample of words as one text [tokens]."""
        first, *others = _SAMPLE
        return self.first_tokens[first] + sum(self.next_tokens[index] for index in others)

    def detail(self) -> dict[str, Json]:
        """What is kept with the run."""
        told: dict[str, Json] = {"prompt_lengths": self.source}
        if self.probes:
            told |= {"length_probes": self.probes, "ignore_eos": self.ignores_eos}
        return told


@dataclass(slots=True)
class Calibration:
    """Finds out what lengths cost on one server.

    Args:
        ask: Posts JSON to the server.
        model: Name of the model.
        api: Endpoint that the run uses.
    """

    ask: Ask
    model: str
    api: Api
    _probes: int = 0
    _ignores_eos: bool = True
    _limit: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    async def lengths(self, setting: Setting) -> PromptLengths:
        """Calibrate; a server that does not tell leaves a word a token.

        Args:
            setting: ``auto`` tries ``tokenize``, then ``usage``.
        """
        if setting == "off":
            return PromptLengths()
        short = await self._prompt_tokens([1])
        long = await self._prompt_tokens([_TIMES])
        several = await self._prompt_tokens([1] * 3)
        told = PromptLengths(ignores_eos=self._ignores_eos, probes=self._probes)
        if short is None or long is None or several is None or long <= short:
            return told
        found = None if setting == "usage" else await self._by_tokenizer(told)
        if found is None and setting != "tokenize":
            mean = (long - short) / (len(_SAMPLE) * (_TIMES - 1))
            evenly = (mean,) * len(PIECES)
            found = replace(told, source="usage", first_tokens=evenly, next_tokens=evenly)
        if found is None:
            return replace(told, probes=self._probes)
        words = found.sample_tokens()
        message = (several - short) / 2 - words
        return replace(
            found,
            message_tokens=message,
            request_tokens=short - words - message,
            probes=self._probes,
        )

    async def _by_tokenizer(self, told: PromptLengths) -> PromptLengths | None:
        """Costs of each word by ``/tokenize``; None where there is no such thing."""
        if await self._count(WORDS[0]) is None:
            return None
        first = await asyncio.gather(*map(self._count, PIECES))
        many = await asyncio.gather(
            *(self._count(" ".join([word] * (_REPEATS + 1))) for word in PIECES)
        )
        once = [count for count in first if count is not None]
        more = [count for count in many if count is not None]
        if len(once) < len(PIECES) or len(more) < len(PIECES):
            return None
        following = tuple((b - a) / _REPEATS for a, b in zip(once, more, strict=True))
        return replace(
            told, source="tokenize", first_tokens=tuple(map(float, once)), next_tokens=following
        )

    async def _count(self, text: str) -> int | None:
        """Tokens of a text; one body serves both servers, each reads its own field."""
        async with self._limit:
            self._probes += 1
            body: dict[str, Json] = {"model": self.model, "prompt": text, "content": text}
            status, answer = await self.ask("tokenize", body)
        if status >= 300 or not isinstance(answer, dict):
            return None
        tokens, count = answer.get("tokens"), answer.get("count")
        if isinstance(count, int) and not isinstance(count, bool):
            return count
        return len(tokens) if isinstance(tokens, list) else None

    async def _prompt_tokens(self, times: Sequence[int]) -> int | None:
        """The server's own count of a prompt whose messages have the sample so many times."""
        sample = [WORDS[index] for index in _SAMPLE]
        body = self._body([" ".join(sample * count) for count in times])
        exact: dict[str, Json] = {"ignore_eos": True, "min_tokens": 1}
        self._probes += 1
        status, answer = await self.ask("generate", body | exact if self._ignores_eos else body)
        if status in (400, 422) and self._ignores_eos:
            self._probes += 1
            status, answer = await self.ask("generate", body)
            if status < 300:
                self._ignores_eos = False
        usage = answer.get("usage") if status < 300 and isinstance(answer, dict) else None
        count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        return count if isinstance(count, int) and count > 0 else None

    def _body(self, texts: Sequence[str]) -> dict[str, Json]:
        body: dict[str, Json] = {"model": self.model, "max_tokens": 1, "temperature": 0}
        if self.api == "completions":
            return body | {"prompt": "\n".join(texts)}
        roles = ["user" if index % 2 == 0 else "assistant" for index in range(len(texts))]
        return body | {
            "messages": [
                {"role": role, "content": text} for role, text in zip(roles, texts, strict=True)
            ]
        }


def asker(client: HttpClient, target: str, headers: Mapping[str, str]) -> Ask:
    """Posts to a server; one that gives no JSON answer says nothing.

    Args:
        client: An open client.
        target: Endpoint that generates, below ``/v1``; ``/tokenize`` lies beside ``/v1``.
        headers: What each request carries.
    """
    root = target.rpartition("/v1/")[0]

    async def ask(path: str, body: Mapping[str, Json]) -> tuple[int, Json]:
        place = target if path == "generate" else f"{root}/{path}"
        try:
            status, text = await client.fetch("POST", place, headers, json.dumps(body).encode())
            return status, json.loads(text)
        except ValueError:
            return status, None
        except (BrokenAnswer, NoConnection, OSError, TimeoutError, RecursionError):
            return _NO_ANSWER, None

    return ask
