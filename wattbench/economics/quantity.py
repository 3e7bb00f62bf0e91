"""A number of a scenario: plain, or with its range, source, date and how it is known."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from wattbench.documents import Document
from wattbench.tpf.bands import Band, Kind


class Quantity(Document):
    """One number, in the unit that its key says.

    Attributes:
        value: The number.
        low: Lower end of its 90 % band; the value itself if nothing is written.
        high: Upper end.
        source: Where it is from; None for a number that stands alone.
        date: When the source said so.
        kind: How it is known; a number without one is assumed.
    """

    value: Annotated[float, Field(ge=0)]
    low: Annotated[float, Field(ge=0)] | None = None
    high: Annotated[float, Field(ge=0)] | None = None
    source: Annotated[str, Field(min_length=3)] | None = None
    date: Annotated[str, Field(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$")] | None = None
    kind: Kind = "assumed"

    @model_validator(mode="after")
    def _ordered(self) -> Quantity:
        low, high = self.low, self.high
        if (low is None) != (high is None):
            raise ValueError("low and high come together")
        if low is not None and high is not None:
            if not low <= self.value <= high:
                raise ValueError(f"value {self.value:g} is outside low {low:g} … high {high:g}")
            if high > 0 and low == 0:
                raise ValueError("low must be above 0 where high is; write a small number")
        return self

    @property
    def band(self) -> Band | None:
        """As a band; None for a plain 0, which has none."""
        if self.value == 0:
            return None
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        return Band(value=self.value, low=low, high=high, kind=self.kind)


def _mapping(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"value": value}
    if not isinstance(value, dict | Quantity):
        raise ValueError(
            "must be a number, or a mapping of value, low, high, source, date and kind"
        )
    return value


def _within(least: float, most: float, what: str) -> AfterValidator:
    def check(quantity: Quantity) -> Quantity:
        for end in (quantity.value, quantity.low, quantity.high):
            if end is not None and not least <= end <= most:
                raise ValueError(f"{end:g} is not {what}")
        return quantity

    return AfterValidator(check)


INFINITE = float("inf")
Number = Annotated[Quantity, BeforeValidator(_mapping)]
Positive = Annotated[Number, _within(1e-300, INFINITE, "above 0")]
Share = Annotated[Number, _within(1e-300, 1, "above 0 and at most 1")]
AtLeastOne = Annotated[
    Number, _within(1, INFINITE, "1 or more; a PUE is facility power over IT power")
]
