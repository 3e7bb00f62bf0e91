"""Checks of a calibration that a run was given: is it still good, and for these powers?"""

from __future__ import annotations

import time
from collections.abc import Iterator

from wattbench.checks.finding import finding
from wattbench.core.energy import EnergyMeasurement
from wattbench.core.result import Finding
from wattbench.energy.calibration import TOLERANCE_FRACTION
from wattbench.metrics import PointFacts, RunFacts, calibration_of
from wattbench.metrics.calibrated import Calibration


def calibration(point: PointFacts) -> Iterator[Finding]:
    """``calibration_expired``, ``calibration_extrapolated``, ``calibration_not_applied``.

    The calibration was too old for the run; the meters read powers outside those it was made
    from; or it is of other devices, or of meters that the run does not have.
    """
    seen = set()
    for run in point.runs:
        found = calibration_of(run.raw)
        for code, message in _doubts(run, found) if found else ():
            if code not in seen:
                seen.add(code)
                yield finding(code, "warning", "energy", message)


def _doubts(run: RunFacts, found: Calibration) -> Iterator[tuple[str, str]]:
    name = f"Calibration {found.calibration_id}"
    if found.misfit is not None:
        yield "calibration_not_applied", f"{name} does not fit this run: {found.misfit}."
        return
    if run.raw.record.started_unix_s > found.expires_unix_s:
        day = time.strftime("%Y-%m-%d", time.gmtime(found.expires_unix_s))
        yield "calibration_expired", f"{name} was good until {day}; make a new one."
    parts = [d.gross for d in run.domains if d.domain.name in found.fit.meters]
    known = [part for part in parts if isinstance(part, EnergyMeasurement)]
    if len(known) < len(parts) or not known:
        return
    fit = found.fit
    watts = sum(part.energy_joules for part in known) / known[0].duration_s
    if fit.excess_watts(watts) > TOLERANCE_FRACTION * (fit.high_watts - fit.low_watts):
        message = (
            f"{name} was made from {fit.low_watts:.4g} to {fit.high_watts:.4g} W of the meters; "
            f"they read {watts:.4g} W here. The interval is wider for it."
        )
        yield "calibration_extrapolated", message
