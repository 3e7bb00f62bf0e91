"""The workload file: what users ask for, how they arrive, and how it is measured."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from wattbench.core.errors import UsageError, did_you_mean
from wattbench.core.slo import parse_slo
from wattbench.documents import Document, find_document, load_document, shipped_names

FOLDER = "workloads"
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


def _few(turns: Fixed | Uniform | Lognormal) -> Fixed | Uniform | Lognormal:
    if (turns.value if isinstance(turns, Fixed) else turns.high) > MAX_TURNS:
        raise ValueError(f"at most {MAX_TURNS} turns")
    return turns


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


class SessionShape(Document):
    """One user's visit: turns, and the lengths of each.

    Attributes:
        turns: Questions asked, one after the other; each carries the conversation so far.
        input_tokens: New text of a turn [tokens].
        output_tokens: Answer of a turn [tokens].
        think_time_s: Pause of the user between an answer and the next question [s].
    """

    turns: Annotated[Distribution, AfterValidator(_few)] = Fixed(value=1)
    input_tokens: Distribution
    output_tokens: Distribution
    think_time_s: Duration = 0.0


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


class Warmup(Document):
    """Load before the measurement: it ends when both are reached.

    Attributes:
        duration_s: Shortest time under load [s].
        requests_per_user: Answers that each user must have got.
    """

    duration_s: Duration = 0.0
    requests_per_user: Annotated[Whole, Field(ge=0, le=MAX_REQUESTS)] = 1


class Measure(Document):
    """The measured phase: it ends with the first limit reached.

    Attributes:
        duration_s: Longest time [s].
        requests: Most requests answered.
    """

    duration_s: PositiveDuration | None = None
    requests: Annotated[Whole, Field(ge=1, le=MAX_REQUESTS)] | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Measure:
        if self.duration_s is None and self.requests is None:
            raise ValueError("needs duration_s, requests, or both")
        return self


class ServiceLevel(Document):
    """Latency that a request must meet to count as good, and the p95 of all; None: no limit."""

    ttft_s: PositiveDuration | None = None
    tpot_s: PositiveDuration | None = None
    e2e_s: PositiveDuration | None = None


def _objectives(value: Any) -> Any:
    if isinstance(value, str):
        try:
            parse_slo(value)
        except UsageError as error:
            raise ValueError(str(error)) from error
    return value


class Workload(Document):
    """A workload file.

    Attributes:
        name: What results call it.
        about: One sentence on what it stands for.
        session: What one user does.
        arrivals: How users come; each value in it is one operating point.
        idle_s: Time with the model loaded and no load, before the warm-up [s].
        deep_idle_s: Time before the engine opens, once for all runs [s].
        warmup: Load before the measurement.
        measure: When the measurement ends.
        request_timeout_s: A request without its end after this is a failure [s].
        ignore_eos: Whether answers have exactly the drawn length.
        slo: Service level: limits by latency, or a text such as ``ttft:p95<500ms``.
        seed: Seed of all randomness of the workload.
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]{1,80}$")]
    about: Annotated[str, Field(min_length=1, max_length=400)]
    session: SessionShape
    arrivals: Annotated[ClosedLoop | OpenLoop, Field(discriminator="kind")]
    idle_s: Duration = 0.0
    deep_idle_s: Duration = 0.0
    warmup: Warmup = Warmup()
    measure: Measure
    request_timeout_s: PositiveDuration = 600.0
    ignore_eos: bool = True
    slo: Annotated[ServiceLevel | str, BeforeValidator(_objectives)] = ServiceLevel()
    seed: Annotated[Whole, Field(ge=0, le=MAX_SEED)] = 0


def load_workload(name_or_path: str) -> Workload:
    """A shipped workload by name, or any by path.

    Raises:
        DocumentError: If there is none, or the file is wrong.
    """
    return load_document(find_document(FOLDER, name_or_path, "workload"), Workload)


def with_value(workload: Workload, path: str, text: str) -> Workload:
    """The workload with one value changed.

    Args:
        workload: The workload.
        path: Keys with dots between, such as ``session.output_tokens``.
        text: The value, as YAML.

    Raises:
        UsageError: If there is no such key, or it does not take the value.
    """
    changed = workload.model_dump(mode="json")
    *outer, last = path.split(".")
    place: Any = changed
    for key in outer:
        place = place.get(key) if isinstance(place, dict) else None
    if not isinstance(place, dict) or last not in place:
        known = list(place) if isinstance(place, dict) else list(changed)
        raise UsageError(
            f"workload.{path}: there is no such key{did_you_mean(last, known)} (here are: "
            f"{', '.join(known)})"
        )
    place[last] = yaml.safe_load(text)
    try:
        return Workload.model_validate(changed)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise UsageError(f"workload.{path}={text}: {problem}") from error


def workload_names() -> list[str]:
    """Names of the shipped workloads."""
    return shipped_names(FOLDER)
