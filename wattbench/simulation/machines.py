"""From a pool of a scenario to a machine of the engine: written, modelled, or measured.

A roofline is exact in the engine's form. With the overhead ``o`` of a step, the bandwidth ``β``,
the arithmetic ``φ``, κ bytes of cache per token and the powers above the floor:

    memory      weights(n)/β + κ·K/β + o
    arithmetic  flops·n/φ + attention·(K + Q)/φ + o
    energy      (P_mem − P_floor) · (memory − o) + (P_cmp − P_floor) · (arithmetic − o)
    busy watts  P_floor

Weights of experts that more tokens read between them bend: they take a knot for each number of
tokens until the last expert is read. Where the device's own limit binds, the roofline only clips
its power; here it is a cap, which stretches the step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, JsonValue, PrivateAttr, ValidationInfo, field_validator, model_validator

from wattbench.core.errors import DocumentError, UsageError
from wattbench.documents import Document, load_document
from wattbench.hardware import (
    MachineProfile,
    ModelDescriptor,
    Roofline,
    load_model,
    load_profile,
    roofline,
)
from wattbench.routing.fleet import KvRule, Machine, Role
from wattbench.routing.step import Knots, Lane, StepModel
from wattbench.simulation.parts import AtLeastZero, AutoscaleText, Kind, Name, StepText, made

SATURATED = 1e-12
"""Experts are taken as all read when this part of them is left."""
Count = Annotated[int, Field(ge=1, le=2**30)]
Devices = Annotated[int, Field(ge=1, le=10**6)]
NEEDED = ("max_batch", "max_step_tokens", "kv_capacity_tokens", "idle_watts")


class Limits(Document):
    """What bounds a machine, and what it draws when it does not work; see docs/simulation.md.

    Attributes:
        max_batch: Most requests at once.
        max_step_tokens: Most tokens computed in a step.
        kv_capacity_tokens: Context held at once, over all requests.
        kv_request_tokens: Charged for each request on top.
        prefix_cache_tokens: Of prompts computed, kept to be used again.
        kv_rule: ``prompt`` or ``whole``.
        idle_watts: Drawn with nothing to do [W].
        sleep_watts: Drawn asleep [W].
        sleep_after_s: Idle time before it sleeps [s]; None: it never does.
        wake_s: From the request that wakes it to its first step [s].
        wake_joules: Energy of that time [J].
        cap_watts: Power cap of each machine [W].
    """

    max_batch: Count | None = None
    max_step_tokens: Count | None = None
    kv_capacity_tokens: Count | None = None
    kv_request_tokens: Annotated[int, Field(ge=0, le=2**30)] | None = None
    prefix_cache_tokens: Annotated[int, Field(ge=0, le=2**30)] | None = None
    kv_rule: KvRule | None = None
    idle_watts: AtLeastZero | None = None
    sleep_watts: AtLeastZero | None = None
    sleep_after_s: AtLeastZero | None = None
    wake_s: AtLeastZero | None = None
    wake_joules: AtLeastZero | None = None
    cap_watts: AtLeastZero | None = None

    def stated(self) -> dict[str, Any]:
        """What is written, by its key."""
        values = ((key, getattr(self, key)) for key in Limits.model_fields)
        return {key: value for key, value in values if value is not None}


class CalibrationText(Limits):
    """A machine that was fitted to measured runs, as `calibration:` names it.

    Attributes:
        name: What it is called.
        about: What it was fitted to.
        step: The curve; measured unless it says otherwise.
        fit: How well it fits; kept with the result.
    """

    name: str = ""
    about: str = ""
    step: StepText
    fit: dict[str, JsonValue] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A machine's steps with what their source knows of its limits.

    Attributes:
        step: Time and energy of its steps.
        kind: How they are known.
        source: Where they are from.
        limits: Limits that the source knows, by their key.
        model: The model it serves; empty: not said.
        device_count: Devices of the replica.
        fit: How well a fitted curve fits; empty of others.
    """

    step: StepModel
    kind: Kind
    source: str
    limits: Mapping[str, Any]
    model: str = ""
    device_count: int = 1
    fit: Mapping[str, Any] = field(default_factory=dict)


class PoolText(Limits):
    """Machines of one kind at one site; exactly one of step, hardware and calibration.

    Attributes:
        name: What tables call it.
        site: Where; may be left out where there is one site.
        count: How many.
        step: The curve, written out.
        hardware: A machine profile, for a roofline with ``model``.
        model: A model descriptor.
        devices: Devices of one machine (replica); None: as few as hold the weights.
        calibration: A JSON file with a fitted curve.
        autoscale: How many are on; None: all.
        role: ``prefill``, ``decode`` or ``both``.
    """

    name: Name
    site: Name | None = None
    count: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    step: StepText | None = None
    hardware: str | None = None
    model: str | None = None
    devices: Devices | None = None
    calibration: str | None = None
    autoscale: AutoscaleText | None = None
    role: Role = "both"
    _curve: Curve = PrivateAttr()
    _machine: Machine = PrivateAttr()

    @field_validator("hardware")
    @classmethod
    def _is_a_profile(cls, name: str | None) -> str | None:
        if name is not None:
            made(lambda: load_profile(name))
        return name

    @field_validator("model")
    @classmethod
    def _is_a_model(cls, name: str | None) -> str | None:
        if name is not None:
            made(lambda: load_model(name))
        return name

    @model_validator(mode="after")
    def _is_a_machine(self, info: ValidationInfo) -> PoolText:
        folder = Path((info.context or {}).get("folder", ""))
        self._curve = made(lambda: self._of_source(folder))
        self._machine = made(self._limited)
        return self

    @property
    def curve(self) -> Curve:
        """What its steps cost, and how that is known."""
        return self._curve

    @property
    def machine(self) -> Machine:
        """As the engine takes it."""
        return self._machine

    def _of_source(self, folder: Path) -> Curve:
        sources = [k for k in ("step", "hardware", "calibration") if getattr(self, k) is not None]
        if len(sources) != 1:
            raise UsageError(
                f"has {' and '.join(sources) or 'nothing'} to say what a step costs; write one of "
                f"step: (coefficients), hardware: with model: (a roofline), calibration: (a file)"
            )
        for key in ("model", "devices"):
            if self.hardware is None and getattr(self, key) is not None:
                raise UsageError(f"{key} belongs to hardware:, a roofline; leave it out")
        if self.step is not None:
            source = self.step.source or "the scenario"
            return Curve(step=self.step.step(), kind=self.step.kind, source=source, limits={})
        if self.calibration is not None:
            return calibrated(folder / self.calibration)
        if self.hardware is None or self.model is None:
            raise UsageError("hardware needs a model, such as model: llama-3.1-8b")
        return modelled(load_profile(self.hardware), load_model(self.model), self.devices)

    def _limited(self) -> Machine:
        stated, known = self.stated(), self._curve.limits
        for key in ("cap_watts", "kv_capacity_tokens"):
            if stated.get(key, 0) > known.get(key, math.inf):
                raise UsageError(
                    f"{key} of {stated[key]:g} is above the {known[key]:g} of {self._curve.source}"
                )
        limits = {**known, **stated}
        for key in NEEDED:
            if key not in limits:
                raise UsageError(f"{key} is missing: {self._curve.source} does not say it; add it")
        if limits.get("sleep_after_s") is None:
            for key in ("sleep_watts", "wake_s", "wake_joules"):
                if key in stated:
                    raise UsageError(f"{key} means nothing to a machine without sleep_after_s")
        elif "sleep_watts" not in limits:
            raise UsageError("sleep_watts is missing: what does it draw asleep?")
        curve = self._curve
        return Machine(
            name=self.name,
            model=curve.model,
            step=curve.step,
            device_count=curve.device_count,
            **limits,
        )


def calibrated(path: Path) -> Curve:
    """The curve of a calibration's file.

    Raises:
        DocumentError: If there is none, or it is wrong.
    """
    if not path.is_file():
        raise DocumentError(
            f"calibration file {path} does not exist; name the JSON file that a calibration wrote"
        )
    text = load_document(path, CalibrationText)
    stated = "kind" in text.step.model_fields_set
    return Curve(
        step=text.step.step(),
        kind=text.step.kind if stated else "measured",
        source=text.step.source or text.about or text.name or path.name,
        fit=text.fit,
        limits=text.stated(),
    )


def modelled(machine: MachineProfile, model: ModelDescriptor, devices: int | None) -> Curve:
    """The roofline of a machine and a model.

    Raises:
        UsageError: If the profile lacks a figure, or a replica cannot have so many devices.
    """
    line = roofline(machine, model, devices)
    limits: dict[str, Any] = {
        "kv_capacity_tokens": line.kv_capacity_tokens,
        "idle_watts": line.idle_watts,
        "cap_watts": line.limit_watts,
    }
    if machine.serving is not None and machine.serving.concurrency is not None:
        limits["max_batch"] = int(machine.serving.concurrency.value)
    return Curve(
        step=step_of(line),
        kind="modelled",
        source=f"roofline of {machine.name} × {line.device_count} with {model.name}",
        limits=limits,
        model=model.name,
        device_count=line.device_count,
    )


def step_of(line: Roofline) -> StepModel:
    """A roofline as lanes; exact where its power limit does not bind."""
    context_s = line.kv_bytes_per_token / line.bytes_per_s
    attended_s = line.attention_flops_per_context_token / line.flops_per_s
    token_s = line.flops_per_token / line.flops_per_s
    memory_watts = line.memory_watts - line.floor_watts
    compute_watts = line.compute_watts - line.floor_watts
    weights_s = _weights_s(line)
    return StepModel(
        memory=Lane(
            tokens=tuple((n, t + line.overhead_s) for n, t in weights_s),
            per_context_token=context_s,
        ),
        arithmetic=Lane(
            tokens=((0.0, line.overhead_s), (1.0, line.overhead_s + token_s)),
            per_context_token=attended_s,
            per_attended_token=attended_s,
        ),
        energy=Lane(
            tokens=tuple((n, memory_watts * t + compute_watts * token_s * n) for n, t in weights_s),
            per_context_token=memory_watts * context_s + compute_watts * attended_s,
            per_attended_token=compute_watts * attended_s,
        ),
        busy_watts=line.floor_watts,
    )


def _weights_s(line: Roofline) -> Knots:
    """Time of reading the weights for so many tokens, at least one [s]."""
    last = 1
    left_fraction = 1.0 - line.expert_fraction
    if line.expert_bytes and 0 < left_fraction < 1:
        last = max(last, math.ceil(math.log(SATURATED) / math.log(left_fraction)))
    tokens = (0, *range(1, last + 1), last + 1)
    return tuple((float(n), line.moved_bytes(min(n, last), 0) / line.bytes_per_s) for n in tokens)
