"""Requests of a benchmark of GuideLLM, of either version: the instants that it keeps of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np

from wattbench.core.load import Phase, RequestResult
from wattbench.interchange.results.document import BadDocument
from wattbench.interchange.results.fields import Fields
from wattbench.interchange.results.rebuilt import MAX_ANSWER_TOKENS, asked, spread_s

STATES = ("successful", "errored", "incomplete")
_CLASS = re.compile(r"^([A-Za-z_][\w.]*)\(")
_START = ("request_start", "resolve_start")
_FIRST = ("first_token_iteration", "first_iteration")
_LAST = ("last_token_iteration", "last_iteration")
_END = ("request_end", "resolve_end")


class Requests:
    """The lists of requests of one benchmark.

    Args:
        place: File and benchmark, for messages.
        told: What stands under ``requests``.
        window_s: Measured phase [Unix s]; a request outside it is not measured.
        open_loop: Whether the load wanted to send at instants of its own.
        streamed: Whether answers came token by token.
    """

    def __init__(
        self,
        place: str,
        told: object,
        *,
        window_s: tuple[float, float] | None,
        open_loop: bool,
        streamed: bool,
    ) -> None:
        self._place, self._window_s = place, window_s
        self._open_loop, self.streamed = open_loop, streamed
        lists = told if isinstance(told, dict) else {}
        self._lists = {state: lists.get(state) or [] for state in STATES}
        for state, values in self._lists.items():
            if not isinstance(values, list):
                raise BadDocument(f"{place}: requests.{state} is not a list")

    @property
    def successful_count(self) -> int:
        """How many succeeded, of those in the lists."""
        return len(self._lists["successful"])

    @property
    def count(self) -> int:
        """How many the lists hold."""
        return sum(len(values) for values in self._lists.values())

    @property
    def counts_chunks(self) -> bool:
        """Whether an answer has no count of the server, so that GuideLLM took chunks for tokens."""
        return any(_is_uncounted(value) for value in self._lists["successful"])

    def check(self) -> None:
        """Look at every request before any is stored.

        Raises:
            BadDocument: If one cannot be meant.
        """
        for _ in self.results():
            pass

    def results(self) -> Iterator[RequestResult]:
        """Each request, in the order of the file."""
        index = 0
        for state, values in self._lists.items():
            for number, value in enumerate(values):
                place = f"{self._place}, requests.{state}[{number}]"
                yield self._result(Fields(place, value), index, state)
                index += 1

    def _result(self, fields: Fields, index: int, state: str) -> RequestResult:
        info = fields.nested("info") or fields.nested("scheduler_info") or fields
        timings = info.nested("timings") or info.nested("request_timings") or info
        start_s = _first(timings, _START) or _first(fields, ("request_start_time", "start_time"))
        first_s = _first(timings, _FIRST) or _first(fields, ("first_token_time",))
        last_s = _first(timings, _LAST) or _first(fields, ("last_token_time",)) or first_s
        end_s = _first(timings, _END) or _first(fields, ("request_end_time", "end_time")) or last_s
        if start_s is None or end_s is None:
            raise fields.bad("request_start_time", None, "so when the request ran is unknown")
        if not start_s <= (first_s or start_s) <= (last_s or end_s) or end_s < start_s:
            raise fields.bad("request_end_time", end_s, "its times run backwards")
        tokens = None if _is_uncounted(fields) else _count(fields, "output_tokens")
        chunks = _count(timings, "token_iterations") or _count(fields, "iterations") or tokens
        chunk_s = np.empty(0)
        if self.streamed and first_s is not None and last_s is not None and chunks:
            chunk_s = spread_s(first_s, last_s, chunks)
        targeted_s = timings.number("targeted_start") if self._open_loop else None
        error = None if state == "successful" else _error(fields, info, state)
        return RequestResult(
            request=asked(index, tokens, turn_index=info.count("turn_index") or 0),
            phase=self._phase(start_s, end_s),
            queued_s=min(targeted_s or start_s, start_s),
            sent_s=start_s,
            end_s=end_s,
            chunk_s=chunk_s,
            chunk_tokens=np.full(len(chunk_s), np.nan),
            input_tokens=_count(fields, "prompt_tokens"),
            output_tokens=tokens,
            cached_tokens=_count(fields, "cached_tokens"),
            tokens_source="usage" if "output_metrics" in fields and tokens is not None else None,
            error_class=error[0] if error else None,
            error_text=error[1] if error else None,
        )

    def _phase(self, start_s: float, end_s: float) -> Phase:
        """Warm-up as well stands for cool-down: outside the measured phase."""
        low_s, high_s = self._window_s or (start_s, end_s)
        return "measured" if start_s <= high_s and end_s >= low_s else "warmup"


def _first(fields: Fields, names: tuple[str, ...]) -> float | None:
    """The first instant that is there; version 1 wrote −1 or 0 where there was none [Unix s]."""
    found = (fields.number(name) for name in names)
    return next((instant_s for instant_s in found if instant_s and instant_s > 0), None)


def _count(fields: Fields, name: str) -> int | None:
    count = fields.count(name)
    if count is not None and count > MAX_ANSWER_TOKENS:
        raise fields.bad(name, count, "more tokens than a request can have")
    return count


def _is_uncounted(request: object) -> bool:
    """Whether the server gave no ``usage`` of a request; version 1 does not tell."""
    if isinstance(request, Fields):
        counted = request.raw("output_metrics")
    else:
        counted = request.get("output_metrics") if isinstance(request, Mapping) else None
    return isinstance(counted, Mapping) and counted.get("total_tokens") is None


def _error(fields: Fields, info: Fields, state: str) -> tuple[str, str]:
    text = info.text("error") or fields.text("error") or state
    if state == "incomplete":
        return "Incomplete", text
    found = _CLASS.match(text)
    return found.group(1) if found else "Errored", text
