"""The workload file: what users ask for, how they arrive, and how it is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from wattbench.core.errors import UsageError, did_you_mean
from wattbench.core.slo import parse_slo
from wattbench.documents import Document, find_document, load_document, shipped_names
from wattbench.workload.arrivals import Arrivals, Ramp, TraceLoop
from wattbench.workload.files import folder_of
from wattbench.workload.lengths import (
    MAX_LENGTH_TOKENS,
    MAX_REQUESTS,
    MAX_SEED,
    MAX_TURNS,
    Distribution,
    Duration,
    Fixed,
    Lognormal,
    PositiveDuration,
    Uniform,
    Whole,
)
from wattbench.workload.prompts import PromptFile

FOLDER = "workloads"


def _few(turns: Fixed | Uniform | Lognormal) -> Fixed | Uniform | Lognormal:
    if (turns.value if isinstance(turns, Fixed) else turns.high) > MAX_TURNS:
        raise ValueError(f"at most {MAX_TURNS} turns")
    return turns


def _named_file(value: Any) -> Any:
    """A path stands for a file of that path."""
    return {"file": value} if isinstance(value, str) else value


class SessionShape(Document):
    """One user's visit: turns, and the lengths or the texts of each.

    Attributes:
        turns: Questions asked, one after the other; each carries the conversation so far.
        input_tokens: New text of a turn [tokens]; None if prompts or a trace say.
        output_tokens: Answer of a turn [tokens]; None if prompts or a trace say.
        think_time_s: Pause of the user between an answer and the next question [s].
        shared_prefix_tokens: System message before every conversation, the same for all sessions
            of a run [tokens]; 0: none.
        prompts: Texts to send in place of synthetic ones.
    """

    turns: Annotated[Distribution, AfterValidator(_few)] = Fixed(value=1)
    input_tokens: Distribution | None = None
    output_tokens: Distribution | None = None
    think_time_s: Duration = 0.0
    shared_prefix_tokens: Annotated[Whole, Field(ge=0, le=MAX_LENGTH_TOKENS)] = 0
    prompts: Annotated[PromptFile | None, BeforeValidator(_named_file)] = None

    @model_validator(mode="after")
    def _prompts_say(self) -> SessionShape:
        if self.prompts is None:
            return self
        given = {
            "turns": self.turns != Fixed(value=1),
            "input_tokens": self.input_tokens is not None,
            "shared_prefix_tokens": self.shared_prefix_tokens > 0,
        }
        if any(given.values()):
            key = next(key for key, found in given.items() if found)
            raise ValueError(f"the file of prompts says what is sent: drop {key}")
        if self.output_tokens is None:
            missing = [v for v in self.prompts.visits if v.output_tokens is None]
            if missing:
                raise ValueError(
                    f"needs output_tokens, the longest answer: {len(missing)} of "
                    f"{len(self.prompts.visits)} prompts do not say"
                )
        return self


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
    arrivals: Arrivals
    idle_s: Duration = 0.0
    deep_idle_s: Duration = 0.0
    warmup: Warmup = Warmup()
    measure: Measure
    request_timeout_s: PositiveDuration = 600.0
    ignore_eos: bool = True
    slo: Annotated[ServiceLevel | str, BeforeValidator(_objectives)] = ServiceLevel()
    seed: Annotated[Whole, Field(ge=0, le=MAX_SEED)] = 0
    _folder: Path = PrivateAttr(default=Path())

    @field_validator("arrivals")
    @classmethod
    def _lengths_once(cls, arrivals: Arrivals, info: ValidationInfo) -> Arrivals:
        shape = info.data.get("session")
        if not isinstance(shape, SessionShape):
            return arrivals
        lengths = [key for key in ("input_tokens", "output_tokens") if getattr(shape, key)]
        if isinstance(arrivals, TraceLoop) and arrivals.trace.lengths_tokens is not None:
            if shape.prompts is not None:
                raise ValueError(
                    "the trace has lengths and the prompts have others: give only times, as "
                    "format: csv with the one column time_s"
                )
            if lengths or shape.turns != Fixed(value=1):
                key = lengths[0] if lengths else "turns"
                raise ValueError(f"the trace says what each request is: drop session.{key}")
        elif shape.prompts is None and len(lengths) < 2:
            key = "output_tokens" if lengths == ["input_tokens"] else "input_tokens"
            raise ValueError(
                f"session.{key} is missing; only a trace with lengths or session.prompts can "
                f"stand for it"
            )
        return arrivals

    @field_validator("measure")
    @classmethod
    def _ramp_ends(cls, measure: Measure, info: ValidationInfo) -> Measure:
        if isinstance(info.data.get("arrivals"), Ramp) and measure.duration_s is None:
            raise ValueError("a ramp needs duration_s, the time that it takes")
        return measure

    @model_validator(mode="after")
    def _remember_folder(self, info: ValidationInfo) -> Workload:
        self._folder = folder_of(info)
        return self

    @property
    def folder(self) -> Path:
        """What paths in it are relative to."""
        return self._folder


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
    if last == "file":
        place["sha256"] = None
    try:
        return Workload.model_validate(changed, context={"folder": workload.folder})
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise UsageError(f"workload.{path}={text}: {problem}") from error


def workload_names() -> list[str]:
    """Names of the shipped workloads."""
    return shipped_names(FOLDER)
