"""Ways in which a power meter fails, each with the range that its parameters are drawn from.

A fault begins ``after_s`` after the first request; before that the sensor is sound. Ranges lie
above the noise of a sound sensor. Partial coverage is no fault but how some sensors work; it is
an option of the sensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from wattbench.core.errors import OptionError, did_you_mean

Range = tuple[float, float]
_AFTER: Range = (2.0, 4.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultKind:
    """One way to fail.

    Attributes:
        about: What happens.
        code: Reason code of the finding that a run with it carries.
        ranges: Parameters, each with the range that it is drawn from unless given.
    """

    about: str
    code: str
    ranges: Mapping[str, Range]


FAULTS: Mapping[str, FaultKind] = MappingProxyType(
    {
        "gap": FaultKind(
            about="no reading for duration_s",
            code="gap",
            ranges={"after_s": _AFTER, "duration_s": (3.6, 5.5)},
        ),
        "wrap": FaultKind(
            about="the energy counter wraps at 2^bits microjoules, every few seconds",
            code="counter_wrap",
            ranges={"bits": (29.6, 31.4)},
        ),
        "reset": FaultKind(
            about="the energy counter starts again at 0, power readings go on",
            code="counter_reset",
            ranges={"after_s": _AFTER},
        ),
        "stale": FaultKind(
            about="every reading keeps its last value for duration_s",
            code="stale_counter",
            ranges={"after_s": _AFTER, "duration_s": (3.0, 8.0)},
        ),
        "lag": FaultKind(
            about="readings tell what was delay_s ago",
            code="meter_lag",
            ranges={"delay_s": (1.0, 3.0)},
        ),
        "quantised": FaultKind(
            about="readings come in steps of quantum_fraction of idle power (per second, for J)",
            code="quantised",
            ranges={"quantum_fraction": (0.3, 0.8)},
        ),
        "dropout": FaultKind(
            about="readings are lost at random, each with loss_fraction",
            code="dropout",
            ranges={"after_s": _AFTER, "loss_fraction": (0.3, 0.6)},
        ),
        "zero": FaultKind(
            about="a failed read is reported as 0, each with failure_fraction",
            code="zero_reading",
            ranges={"after_s": _AFTER, "failure_fraction": (0.1, 0.3)},
        ),
        "negative": FaultKind(
            about="a read comes with the wrong sign, each with failure_fraction",
            code="negative_reading",
            ranges={"after_s": _AFTER, "failure_fraction": (0.1, 0.3)},
        ),
        "spike": FaultKind(
            about="every every_s a read is height_ratio times the power limit",
            code="spike",
            ranges={"after_s": _AFTER, "every_s": (0.8, 1.6), "height_ratio": (3.0, 10.0)},
        ),
        "clock_skew": FaultKind(
            about="the sensor's own stamps are offset_s wrong",
            code="clock_skew",
            ranges={"offset_s": (1.0, 5.0)},
        ),
        "missing_device": FaultKind(
            about="the last device is no longer reported",
            code="missing_device",
            ranges={"after_s": _AFTER},
        ),
        "throttle": FaultKind(
            about="power above the floor is held to limit_fraction of that of streaming memory",
            code="throttled",
            ranges={"after_s": _AFTER, "limit_fraction": (0.3, 0.6)},
        ),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault with its parameters fixed."""

    kind: str
    parameters: Mapping[str, float]

    def __getitem__(self, name: str) -> float:
        """A parameter; onset 0 for kinds that are there from the start."""
        return self.parameters.get(name, 0.0)


def make_fault(kind: str, given: Mapping[str, str], seed: int) -> Fault:
    """A fault of one kind; what is not given is drawn from its documented range.

    Args:
        kind: One of ``FAULTS``.
        given: Parameters as text.
        seed: Seed of the draw.

    Raises:
        OptionError: For an unknown kind or parameter, or a value that is no number.
    """
    if kind not in FAULTS:
        hint = did_you_mean(kind, list(FAULTS))
        raise OptionError(f"unknown fault {kind!r}{hint} (there are {', '.join(FAULTS)})")
    ranges = FAULTS[kind].ranges
    rng = np.random.default_rng((seed, list(FAULTS).index(kind)))
    parameters = {name: float(rng.uniform(*span)) for name, span in ranges.items()}
    for name, text in given.items():
        if name not in ranges:
            hint = did_you_mean(name, list(ranges))
            raise OptionError(f"fault {kind}: unknown parameter {name!r}{hint}")
        try:
            parameters[name] = float(text)
        except ValueError:
            raise OptionError(f"fault {kind}: {name}={text!r} is not a number") from None
        most = 1.0 if name in ("loss_fraction", "failure_fraction", "limit_fraction") else 1e6
        if not (0 <= parameters[name] <= most or name == "offset_s"):
            raise OptionError(f"fault {kind}: {name}={text} must be from 0 to {most:g}")
    return Fault(kind=kind, parameters=parameters)
