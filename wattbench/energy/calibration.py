"""A wall meter as a straight line in what the devices' own meters say.

    wall  =  g · Σ meters  +  o

fitted by weighted least squares to the mean powers of steady windows and idle stretches, one point
per load level. With x̄ the weighted mean of the levels, g and the line's height there, c = o + g x̄,
are independent of each other, so for a window of length T in which the meters say E

    E_wall  =  g E + o T  ±  k s_g (E − x̄ T)  ±  k s_c T  ±  k' s T  ±  the wall meter's prior

s_g and s_c are the standard errors of slope and height; both are the same for every window that
the fit is applied to, so over repeats they add up and in a difference of two windows they cancel
as far as they can. They are written as uniform terms of the same 95 %: k = t / 0.95, with t of
n − 2 degrees of freedom. s, the scatter about the line, is new in every window: k' = t / 1.96.
Beyond the powers that were fitted, half of the way that the line goes there is added.

The priors of the devices' meters on gain and offset do not enter: the line has them in it.

Source: Draper and Smith, *Applied Regression Analysis*, 3rd ed., sections 1.4 and 3.1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import stdtrit

from wattbench.core.energy import (
    Boundary,
    EnergyDomain,
    EnergyMeasurement,
    FloatArray,
    Unmeasured,
)
from wattbench.core.errors import WattbenchError
from wattbench.energy.integrate import CumulativeEnergy

NAME = "wall"
"""Name of the derived domain."""
MIN_LEVELS = 5
MIN_RANGE_FRACTION = 0.2
"""Least range of the meters' power over its mean."""
MIN_R2_FRACTION = 0.95
MAX_GAIN_ERROR_FRACTION = 0.2
"""Standard error of the gain over the gain from which gain and offset are not told apart."""
FLOOR_FRACTION = 1e-3
"""No level is trusted to be on a line better than this share of the wall's mean power."""
BEYOND_FRACTION = 0.5
"""Doubt about the line outside its levels, over what it gains there."""
TOLERANCE_FRACTION = 0.05
"""How far outside, over the range of the levels, a power may lie before it is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Mean powers at one load level.

    Attributes:
        label: What the load was.
        meters_watts: Sum of the devices' meters [W].
        wall_watts: The wall meter [W].
        sd_watts: Standard deviation of their disagreement that is known beforehand [W].
    """

    label: str
    meters_watts: float
    wall_watts: float
    sd_watts: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WallFit:
    """A fitted line, and what it may be used for.

    Attributes:
        meters: Domains that are summed.
        devices: Devices of those domains.
        wall: Domain that was fitted.
        boundary: What the wall meter includes.
        current: ``ac`` or ``dc`` of it.
        gain_ratio: Slope g.
        offset_watts: Intercept o [W].
        mean_watts: Weighted mean of the meters' powers x̄ [W].
        gain_sd_ratio: Standard error of the slope.
        height_sd_watts: Standard error of the line at x̄ [W].
        residual_sd_watts: Scatter about the line [W].
        degrees_count: Degrees of freedom of the scatter.
        r2_fraction: Share of the wall's variance that the line explains.
        low_watts: Lowest power of the meters [W].
        high_watts: Highest power of the meters [W].
        levels_count: Load levels fitted.
        wall_gain_half_width_fraction: Prior of the wall meter on its gain.
        wall_offset_half_width_watts: Prior of the wall meter on its offset [W].
    """

    meters: tuple[str, ...]
    devices: tuple[str, ...]
    wall: str
    boundary: Boundary
    current: Literal["ac", "dc"] | None
    gain_ratio: float
    offset_watts: float
    mean_watts: float
    gain_sd_ratio: float
    height_sd_watts: float
    residual_sd_watts: float
    degrees_count: int
    r2_fraction: float
    low_watts: float
    high_watts: float
    levels_count: int
    wall_gain_half_width_fraction: float
    wall_offset_half_width_watts: float

    @property
    def covariance_watts(self) -> float:
        """Covariance of gain and offset [W]."""
        return -self.mean_watts * self.gain_sd_ratio**2

    @property
    def offset_sd_watts(self) -> float:
        """Standard error of the intercept [W]."""
        return float(np.hypot(self.height_sd_watts, self.mean_watts * self.gain_sd_ratio))

    def excess_watts(self, power_watts: float) -> float:
        """How far a power of the meters lies outside the levels [W], 0 inside."""
        return max(self.low_watts - power_watts, power_watts - self.high_watts, 0.0)

    def as_json(self) -> dict[str, Any]:
        """For the store, and for the event that travels with a run."""
        return dataclasses.asdict(self) | {
            "meters": list(self.meters),
            "devices": list(self.devices),
            "offset_sd_watts": self.offset_sd_watts,
            "gain_offset_covariance_watts": self.covariance_watts,
        }


def fit_from_json(found: Mapping[str, Any]) -> WallFit:
    """A fit as ``as_json`` wrote it.

    Raises:
        ValueError: If a part of it is missing or is no number.
    """
    try:
        known = {field.name: found[field.name] for field in dataclasses.fields(WallFit)}
        return WallFit(
            **known | {"meters": tuple(known["meters"]), "devices": tuple(known["devices"])}
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"a calibration is damaged: {error}") from error


def fit_wall(
    levels: Sequence[Level], meters: Sequence[EnergyDomain], wall: EnergyDomain
) -> WallFit:
    """Fit a wall meter to the sum of others.

    Args:
        levels: Mean powers, one per load level.
        meters: The domains summed.
        wall: The wall meter's domain.

    Raises:
        WattbenchError: If the levels do not carry a line, with the numbers.
    """
    x = np.array([level.meters_watts for level in levels])
    y = np.array([level.wall_watts for level in levels])
    _demand_levels(x)
    floor_watts = FLOOR_FRACTION * float(np.abs(y).mean())
    weight = 1 / (np.array([level.sd_watts for level in levels]) ** 2 + floor_watts**2)
    weight /= weight.mean()
    mean_watts = float(weight @ x / weight.sum())
    height = float(weight @ y / weight.sum())
    spread = float(weight @ (x - mean_watts) ** 2)
    gain = float(weight @ ((x - mean_watts) * (y - height))) / spread
    left = y - height - gain * (x - mean_watts)
    degrees = len(levels) - 2
    variance = float(weight @ left**2) / degrees
    whole = float(weight @ (y - height) ** 2)
    r2 = 1 - float(weight @ left**2) / whole if whole > 0 else 0.0
    gain_sd = float(np.sqrt(variance / spread))
    _demand_line(gain, gain_sd, r2, float(np.sqrt(variance)))
    return WallFit(
        meters=tuple(domain.name for domain in meters),
        devices=tuple(device for domain in meters for device in domain.devices),
        wall=wall.name,
        boundary=wall.boundary,
        current=wall.current,
        gain_ratio=gain,
        offset_watts=height - gain * mean_watts,
        mean_watts=mean_watts,
        gain_sd_ratio=gain_sd,
        height_sd_watts=float(np.sqrt(variance / weight.sum())),
        residual_sd_watts=float(np.sqrt(variance)),
        degrees_count=degrees,
        r2_fraction=r2,
        low_watts=float(x.min()),
        high_watts=float(x.max()),
        levels_count=len(levels),
        wall_gain_half_width_fraction=wall.gain_half_width_fraction,
        wall_offset_half_width_watts=wall.offset_half_width_watts,
    )


def _demand_levels(x: FloatArray) -> None:
    if len(x) < MIN_LEVELS:
        raise WattbenchError(
            f"a calibration takes {MIN_LEVELS} load levels, idle among them; these runs have "
            f"{len(x)}. Measure more values of --concurrency, with idle_s in the workload"
        )
    share = float(np.ptp(x) / max(x.mean(), 1e-9))
    if share < MIN_RANGE_FRACTION:
        raise WattbenchError(
            f"the meters range over {x.min():.4g} … {x.max():.4g} W, {share:.0%} of their mean; a "
            f"line takes {MIN_RANGE_FRACTION:.0%}. Add idle and heavier loads"
        )


def _demand_line(gain: float, gain_sd: float, r2: float, residual_watts: float) -> None:
    if r2 < MIN_R2_FRACTION:
        raise WattbenchError(
            f"the wall does not follow the meters on a line: R² is {r2:.3f}, below "
            f"{MIN_R2_FRACTION}, with {residual_watts:.3g} W of scatter. A device may be missing "
            f"among --meters, or the clock of the wall's log is off"
        )
    if gain <= 0 or gain_sd > MAX_GAIN_ERROR_FRACTION * gain:
        raise WattbenchError(
            f"gain and offset are collinear over these levels: the gain is {gain:.3f} ± "
            f"{gain_sd:.3f}. Add levels that differ more"
        )


def derived_domain(fit: WallFit, calibration_id: str, name: str = NAME) -> EnergyDomain:
    """The domain that follows from a fit."""
    return EnergyDomain(
        name=name,
        meter="calibration",
        quantity="energy_counter",
        kind="derived",
        boundary=fit.boundary,
        current=fit.current,
        devices=fit.devices,
        method=(
            f"{fit.gain_ratio:.4f} x ({' + '.join(fit.meters)}) + {fit.offset_watts:.1f} W, "
            f"calibration {calibration_id} against {fit.wall}"
        ),
        stamped_by="sensor",
    )


def derived_energy(
    fit: WallFit, domain: EnergyDomain, parts: Sequence[EnergyMeasurement | Unmeasured]
) -> EnergyMeasurement | Unmeasured:
    """Energy at the wall in a window, from that of the devices' meters.

    Args:
        fit: The line.
        domain: The domain that follows from it.
        parts: Energy of each of the fit's meters over the window, in any order.
    """
    missing = [part for part in parts if isinstance(part, Unmeasured)]
    known = [part for part in parts if isinstance(part, EnergyMeasurement)]
    if missing:
        return missing[0]
    length_s = known[0].duration_s
    joules = sum(part.energy_joules for part in known)
    gain = fit.gain_ratio
    wall_joules = gain * joules + fit.offset_watts * length_s
    t = float(stdtrit(fit.degrees_count, 0.975))
    edge_joules = gain * float(np.hypot.reduce([0.0, *(part.edge_joules for part in known)]))
    beyond_joules = (
        BEYOND_FRACTION * gain * fit.excess_watts(joules / length_s) * length_s
        if length_s > 0
        else 0.0
    )
    hidden = [gain * part.coverage_half_width_joules for part in known]
    return EnergyMeasurement(
        energy_joules=wall_joules,
        duration_s=length_s,
        kind="derived",
        boundary=domain.boundary,
        devices=domain.devices,
        domains=(domain.name,),
        method=domain.method,
        gain_half_widths_joules=(
            t / 0.95 * fit.gain_sd_ratio * (joules - fit.mean_watts * length_s),
            fit.wall_gain_half_width_fraction * abs(wall_joules),
        ),
        offset_half_widths_joules=(
            t / 0.95 * fit.height_sd_watts * length_s,
            fit.wall_offset_half_width_watts * length_s,
        ),
        edge_joules=float(np.hypot(edge_joules, t / 1.959964 * fit.residual_sd_watts * length_s)),
        coverage_half_width_joules=float(np.hypot.reduce([beyond_joules, *hidden])),
        alignment_half_width_joules=gain * sum(part.alignment_half_width_joules for part in known),
    )


def derived_cumulative(
    fit: WallFit, domain: EnergyDomain, parts: Sequence[CumulativeEnergy]
) -> CumulativeEnergy:
    """Cumulative energy at the wall, where all the fit's meters are known."""
    start_s = max(float(part.time_s[0]) for part in parts)
    end_s = min(float(part.time_s[-1]) for part in parts)
    time_s = np.unique(np.concatenate([part.time_s for part in parts]).clip(start_s, end_s))
    joules = fit.gain_ratio * sum(part.at_joules(time_s) for part in parts)
    watts = None
    if all(part.power_watts is not None for part in parts):
        summed = sum(
            np.interp(time_s, part.time_s, part.power_watts)
            for part in parts
            if part.power_watts is not None
        )
        watts = np.asarray(fit.gain_ratio * summed + fit.offset_watts, np.float64)
    return CumulativeEnergy(
        domain=domain,
        time_s=time_s,
        energy_joules=np.asarray(joules + fit.offset_watts * (time_s - start_s), np.float64),
        power_watts=watts,
    )
