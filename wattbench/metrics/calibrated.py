"""A calibration that travels with a run, and whether it fits what the run measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wattbench.core.energy import EnergyDomain
from wattbench.core.run import RawRun
from wattbench.energy.calibration import NAME, WallFit, derived_domain, fit_from_json

EVENT = "calibration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The calibration of a run.

    Attributes:
        calibration_id: Its name.
        expires_unix_s: From when on it is not to be trusted [Unix s].
        fit: The line.
        misfit: Why it does not apply to this run; None if it does.
        domain: The domain that follows from it.
    """

    calibration_id: str
    expires_unix_s: float
    fit: WallFit
    misfit: str | None
    domain: EnergyDomain


def calibration_of(raw: RawRun) -> Calibration | None:
    """The calibration that a run was given last, None if it was given none."""
    found = [event.detail for event in raw.events if event.kind == EVENT]
    if not found:
        return None
    fit = found[-1].get("fit")
    assert isinstance(fit, Mapping), "a calibration event has no fit"
    line, calibration_id = fit_from_json(fit), str(found[-1]["calibration_id"])
    taken = any(trace.domain.name == NAME for trace in raw.traces)
    return Calibration(
        calibration_id=calibration_id,
        expires_unix_s=float(str(found[-1]["expires_unix_s"])),
        fit=line,
        misfit=_misfit(line, raw),
        domain=derived_domain(line, calibration_id, f"{NAME}/derived" if taken else NAME),
    )


def _misfit(fit: WallFit, raw: RawRun) -> str | None:
    domains = {trace.domain.name: trace.domain for trace in raw.traces}
    missing = [name for name in fit.meters if name not in domains]
    if missing:
        return f"{', '.join(missing)} was not measured"
    devices = [device for name in fit.meters for device in domains[name].devices]
    if sorted(devices) != sorted(fit.devices):
        return f"it was made for {', '.join(fit.devices)}, the run has {', '.join(devices)}"
    return None
