"""Numbers of a workload file, their bounds, and lengths drawn from a distribution."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from wattbench.documents import Document

MAX_LENGTH_TOKENS = 10**7
MAX_TURNS = 10**5
MAX_DURATION_S = 1e7
MAX_RATE_PER_S = 1e6
MIN_RATE_PER_S = 1e-7
MAX_USERS = 100_000
MAX_REQUESTS = 10**9
MAX_SIGMA = 5.0
MAX_SEED = 2**63 - 1
"""What is beyond is a slip of the pen: no engine takes it, and some of it overflows in a run."""


def _number(value: Any) -> Any:
    """YAML's booleans and texts are no numbers, though Python and pydantic take them for some."""
    if isinstance(value, bool | str | bytes):
        raise ValueError("must be a number")
    return value


Whole = Annotated[int, BeforeValidator(_number)]
Real = Annotated[float, BeforeValidator(_number)]
Length = Annotated[Whole, Field(ge=1, le=MAX_LENGTH_TOKENS)]
Users = Annotated[Whole, Field(ge=1, le=MAX_USERS)]
Duration = Annotated[Real, Field(ge=0, le=MAX_DURATION_S)]
PositiveDuration = Annotated[Real, Field(gt=0, le=MAX_DURATION_S)]
Rate = Annotated[Real, Field(ge=MIN_RATE_PER_S, le=MAX_RATE_PER_S)]


class Fixed(Document):
    """Always the same length."""

    kind: Literal["fixed"] = "fixed"
    value: Length

    def draw(self, rng: np.random.Generator) -> int:
        """One length."""
        return self.value


class Uniform(Document):
    """Every length from ``low`` to ``high`` equally likely, both included."""

    kind: Literal["uniform"]
    low: Length
    high: Length

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    def draw(self, rng: np.random.Generator) -> int:
        """One length."""
        return int(rng.integers(self.low, self.high, endpoint=True))


class Lognormal(Document):
    """Most lengths short, a few long: ``median · exp(sigma · N(0, 1))``, kept in the range."""

    kind: Literal["lognormal"]
    median: Annotated[Real, Field(gt=0, le=MAX_LENGTH_TOKENS)]
    sigma: Annotated[Real, Field(ge=0, le=MAX_SIGMA)]
    low: Length = 1
    high: Length

    @model_validator(mode="after")
    def _ordered(self) -> Lognormal:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    def draw(self, rng: np.random.Generator) -> int:
        """One length."""
        drawn = self.median * float(rng.lognormal(0.0, self.sigma))
        return round(min(max(drawn, self.low), self.high))


def _spelled_out(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"kind": "fixed", "value": value}
    if isinstance(value, dict) and "kind" not in value:
        raise ValueError("needs the key kind: fixed, uniform or lognormal")
    if not isinstance(value, dict | Document):
        raise ValueError("must be a whole number, or a mapping with kind")
    return value


Distribution = Annotated[
    Fixed | Uniform | Lognormal, Field(discriminator="kind"), BeforeValidator(_spelled_out)
]
"""A length: a whole number, or a mapping with ``kind``."""
