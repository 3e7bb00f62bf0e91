"""How users come: in a closed loop, or by the clock."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

from wattbench.documents import Document
from wattbench.workload.lengths import Rate, Users


def _listed(value: Any) -> Any:
    """One number stands for a list of one."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list of numbers such as [1, 4]")
    return value


def _points(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("needs at least one value")
    if len(set(values)) < len(values):
        raise ValueError("each value once")
    return values


_OPERATING_POINTS = (BeforeValidator(_listed), AfterValidator(_points))


class ClosedLoop(Document):
    """A fixed number of users, each sending the next request when the last is answered."""

    kind: Literal["closed"]
    concurrency: Annotated[tuple[Users, ...], *_OPERATING_POINTS] = (1,)


class OpenLoop(Document):
    """Sessions arrive by the clock, whether or not the engine keeps up.

    Attributes:
        kind: ``constant`` gaps, or a ``poisson`` process.
        rate_per_s: Sessions per second, one operating point each.
        max_concurrency: Slots; an arrival without a slot waits, and the wait counts as latency.
    """

    kind: Literal["constant", "poisson"]
    rate_per_s: Annotated[tuple[Rate, ...], *_OPERATING_POINTS]
    max_concurrency: Users | None = None
