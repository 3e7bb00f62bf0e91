"""How an emulated server lets answers fail, each as real servers do.

http-429      refused: too many requests
http-500      refused: the server is out of order
hang          half of the answer, then nothing, the connection stays open
half-closed   half of the answer, then the connection ends
malformed     half of the answer, then an event that is no JSON
wrong-usage   a whole answer whose count is ten times too high
die           the process ends in the middle of an answer
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from wattbench.plugins import option

if TYPE_CHECKING:
    from aiohttp import web

AnswerFaultKind = Literal[
    "http-429", "http-500", "hang", "half-closed", "malformed", "wrong-usage", "die"
]
ANSWER_FAULTS: tuple[AnswerFaultKind, ...] = get_args(AnswerFaultKind)
WRONG_FACTOR = 10
"""A wrong count is so many times too high."""
_EXIT_CODE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFault:
    """One way to fail.

    Raises:
        ValueError: If the kind is unknown or ``every`` below 1.
    """

    kind: AnswerFaultKind = option("http-500", "what happens")
    every: int = option(5, "each how many-th request it happens to")

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every={self.every} must be a whole number from 1")

    @property
    def status(self) -> int | None:
        """HTTP status of a refusal, None for the other kinds."""
        return {"http-429": 429, "http-500": 500}.get(self.kind)

    @property
    def breaks_off(self) -> bool:
        """Whether the answer does not come to its end."""
        return self.kind in ("hang", "half-closed", "malformed", "die")


async def break_off(fault: AnswerFault, request: web.Request, response: web.StreamResponse) -> None:
    """Fail in the middle of an answer."""
    if fault.kind == "die":
        os._exit(_EXIT_CODE)  # as a crash: nothing is said and nothing tidied up
    if fault.kind == "hang":
        await asyncio.Event().wait()
    if fault.kind == "malformed":
        await response.write(b'data: {"choices": [{"te\n\n')
    if request.transport is not None:
        # What is written goes out first; a chunked body that ends so lacks its end.
        request.transport.close()
