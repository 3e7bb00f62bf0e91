"""Checks of what the power means: does it follow the load, is it seen whole, do two paths agree?"""

from __future__ import annotations

from collections.abc import Iterator

from wattbench.checks.finding import finding
from wattbench.core.energy import EnergyDomain, EnergyMeasurement
from wattbench.core.result import Finding
from wattbench.energy.aliasing import AliasRisk, alias_risk
from wattbench.metrics import PointFacts, charged_domains, load_periods_s
from wattbench.metrics.domain_energy import DomainEnergy

IDLE_SHARE = 0.03
"""Energy above loaded idle over all energy below which no load can be seen in the power."""
HIDDEN_FRACTION = 0.02
"""Half-width of what a sensor does not see, over the energy, from which it must be said."""
RESIDUAL_FRACTION = 0.05
"""Difference between a counter and the integral of power from which one of them is wrong."""


def alias(point: PointFacts) -> Iterator[Finding]:
    """``alias_risk``: a sensor that looks at part of the time is in step with the load."""
    for run in point.runs:
        for found in charged_domains(run.raw, run.domains):
            domain, gross = found.domain, found.gross
            share, period_s = domain.coverage_fraction, domain.update_period_s
            if run.window is None or share == 1.0 or period_s is None:
                continue
            duration_s = run.window.duration_s
            risks = [
                (load_s, alias_risk(load_s, period_s, share, duration_s))
                for load_s in load_periods_s(run.raw, run.window)
            ]
            locked = [(load_s, risk) for load_s, risk in risks if risk.at_risk]
            hidden = 0.0
            if isinstance(gross, EnergyMeasurement):
                hidden = gross.coverage_half_width_joules / max(gross.energy_joules, 1e-9)
            if locked or hidden > HIDDEN_FRACTION:
                yield finding("alias_risk", "warning", "energy", _alias_message(found, locked))
                return


def _alias_message(found: DomainEnergy, locked: list[tuple[float, AliasRisk]]) -> str:
    domain = found.domain
    looks = f"{domain.name} looks at a part of every {(domain.update_period_s or 0.0) * 1e3:.0f} ms"
    if not locked:
        return f"{looks}, and its readings beat with the load; the interval is wide because of it."
    load_s, risk = locked[0]
    return (
        f"{looks}; the load repeats every {load_s * 1e3:.1f} ms, {risk.load_count} times in "
        f"{risk.sensor_count} of its periods, so the error does not average out. Change the "
        f"concurrency or the lengths, or use an energy counter."
    )


def ignores_load(point: PointFacts) -> Iterator[Finding]:
    """``power_ignores_load``: metered power does not rise with the load."""
    headline = point.headline
    gross, net = headline.gross.value, headline.net_loaded_idle.value
    if headline.kind not in ("counter", "integrated") or not gross or net is None:
        return
    if net < IDLE_SHARE * gross and any(run.measured for run in point.runs):
        message = (
            f"Power under load is that of the idle machine (within {IDLE_SHARE:.0%}): the meter "
            f"may watch another device than the one that works."
        )
        yield finding("power_ignores_load", "error", "energy", message)


def replayed(point: PointFacts) -> Iterator[Finding]:
    """``replayed_energy``: the joules were measured in another run, not in this one."""
    for run in point.runs:
        if any(d.domain.meter == "replay" for d in charged_domains(run.raw, run.domains)):
            message = (
                "The joules are those of another run, played again: they say nothing of this load."
            )
            yield finding("replayed_energy", "warning", "energy", message)
            return


def two_paths(point: PointFacts) -> Iterator[Finding]:
    """``counter_vs_integral_residual``: a device's counter and its power disagree."""
    for run in point.runs:
        by_name = {d.domain.name: d for d in run.domains}
        for domain in run.domains:
            parent = by_name.get(domain.domain.parent or "")
            # A part of a device, or a device in a larger one, has less energy: that is no fault.
            if parent is None or _covers(parent.domain) != _covers(domain.domain):
                continue
            counter, power = parent.gross, domain.gross
            if not isinstance(counter, EnergyMeasurement) or not isinstance(
                power, EnergyMeasurement
            ):
                continue
            residual = power.energy_joules / max(counter.energy_joules, 1e-9) - 1
            if abs(residual) > RESIDUAL_FRACTION:
                message = (
                    f"Integrated power of {domain.domain.parent} is {residual:+.1%} off its energy "
                    f"counter; one of the two is wrong, or the power sensor looks at part of the "
                    f"time only."
                )
                yield finding("counter_vs_integral_residual", "warning", "energy", message)
                return


def _covers(domain: EnergyDomain) -> tuple[str, tuple[str, ...]]:
    return domain.boundary, domain.devices
