"""The workload file: what users ask for, how they arrive, and how it is measured."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from wattbench.documents import Document, find_document, load_document, shipped_names

FOLDER = "workloads"
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class Fixed(Document):
    """Always the same length."""

    kind: Literal["fixed"] = "fixed"
    value: PositiveInt

    def draw(self, rng: np.random.Generator) -> int:
        """One length."""
        return self.value


class Uniform(Document):
    """Every length from ``low`` to ``high`` equally likely, both included."""

    kind: Literal["uniform"]
    low: PositiveInt
    high: PositiveInt

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
    median: PositiveFloat
    sigma: NonNegative
    low: PositiveInt = 1
    high: PositiveInt

    @model_validator(mode="after")
    def _ordered(self) -> Lognormal:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self

    def draw(self, rng: np.random.Generator) -> int:
        """One length."""
        return int(
            np.clip(round(self.median * rng.lognormal(0.0, self.sigma)), self.low, self.high)
        )


def _spelled_out(value: Any) -> Any:
    return {"kind": "fixed", "value": value} if isinstance(value, int) else value


Distribution = Annotated[
    Fixed | Uniform | Lognormal, Field(discriminator="kind"), BeforeValidator(_spelled_out)
]
"""A length: a whole number, or a mapping with ``kind``."""


class SessionShape(Document):
    """One user's visit: turns, and the lengths of each.

    Attributes:
        turns: Questions asked, one after the other; each carries the conversation so far.
        input_tokens: New text of a turn [tokens].
        output_tokens: Answer of a turn [tokens].
        think_time_s: Pause of the user between an answer and the next question [s].
    """

    turns: Distribution = Fixed(value=1)
    input_tokens: Distribution
    output_tokens: Distribution
    think_time_s: NonNegative = 0.0


class ClosedLoop(Document):
    """A fixed number of users, each sending the next request when the last is answered."""

    kind: Literal["closed"]
    concurrency: tuple[PositiveInt, ...] = (1,)


class OpenLoop(Document):
    """Sessions arrive by the clock, whether or not the engine keeps up.

    Attributes:
        kind: ``constant`` gaps, or a ``poisson`` process.
        rate_per_s: Sessions per second, one operating point each.
        max_concurrency: Slots; an arrival without a slot waits, and the wait counts as latency.
    """

    kind: Literal["constant", "poisson"]
    rate_per_s: tuple[PositiveFloat, ...]
    max_concurrency: PositiveInt | None = None


class Warmup(Document):
    """Load before the measurement: it ends when both are reached.

    Attributes:
        duration_s: Shortest time under load [s].
        requests_per_user: Answers that each user must have got.
    """

    duration_s: NonNegative = 0.0
    requests_per_user: Annotated[int, Field(ge=0)] = 1


class Measure(Document):
    """The measured phase: it ends with the first limit reached.

    Attributes:
        duration_s: Longest time [s].
        requests: Most requests answered.
    """

    duration_s: PositiveFloat | None = None
    requests: PositiveInt | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Measure:
        if self.duration_s is None and self.requests is None:
            raise ValueError("needs duration_s, requests, or both")
        return self


class ServiceLevel(Document):
    """Latency that a request must meet to count as good; None: no limit."""

    ttft_s: PositiveFloat | None = None
    tpot_s: PositiveFloat | None = None
    e2e_s: PositiveFloat | None = None


class Workload(Document):
    """A workload file.

    Attributes:
        name: What results call it.
        about: One sentence on what it stands for.
        session: What one user does.
        arrivals: How users come; each value in it is one operating point.
        idle_s: Time with the model loaded and no load, before the warm-up [s].
        warmup: Load before the measurement.
        measure: When the measurement ends.
        request_timeout_s: A request without its end after this is a failure [s].
        ignore_eos: Whether answers have exactly the drawn length.
        slo: Service level.
        seed: Seed of all randomness of the workload.
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]{1,80}$")]
    about: Annotated[str, Field(min_length=1, max_length=400)]
    session: SessionShape
    arrivals: Annotated[ClosedLoop | OpenLoop, Field(discriminator="kind")]
    idle_s: NonNegative = 0.0
    warmup: Warmup = Warmup()
    measure: Measure
    request_timeout_s: PositiveFloat = 600.0
    ignore_eos: bool = True
    slo: ServiceLevel = ServiceLevel()
    seed: Annotated[int, Field(ge=0)] = 0


def load_workload(name_or_path: str) -> Workload:
    """A shipped workload by name, or any by path.

    Raises:
        DocumentError: If there is none, or the file is wrong.
    """
    return load_document(find_document(FOLDER, name_or_path, "workload"), Workload)


def workload_names() -> list[str]:
    """Names of the shipped workloads."""
    return shipped_names(FOLDER)
