r"""The Token Production Function itself: two ceilings, which of them binds, and by how much.

    token rate = min(K_eff / c_tok, θ · P_IT / e_tok) · Φ · U        P_IT = P_grid / PUE

K_eff is the effective compute [FLOP/s], c_tok what one token asks of it [FLOP], P_IT the power that
reaches the machines [W], e_tok the joules of one token at node scope, θ a delivery efficiency that
must not hold a PUE, Φ what the system makes of it (compression, scheduling), U its utilisation.
All at a fixed quality q* and service level s*.

Two modes exclude each other. *Intrinsic*: c_tok and e_tok of a machine kept full, Φ and U explicit.
*As measured*: both taken at the batch and the utilisation of a run, so Φ = U = 1. A mixture would
count the same loss twice and is refused. PUE enters once: joules of the facility hold it already
and are refused as well.

    margin = 1 − min / max of the two ceilings        log ratio = ln(compute / energy)

Source: Liu, Yuan et al., *LLM Inference Should Be Evaluated as Energy-to-Token Production*,
arXiv 2605.11733.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from wattbench.core.energy import Boundary
from wattbench.core.errors import UsageError
from wattbench.core.result import Estimate
from wattbench.tpf.arrays import Array
from wattbench.tpf.bands import FRACTION, Band, exactly, from_draws, worst

ModeOfUse = Literal["intrinsic", "as_measured"]
Constraint = Literal["compute", "energy"]

NODE_OVER_BOARDS = Band(value=1.8, low=1.5, high=1.9, kind="assumed")
"""Wall of a server over its boards under load: 1.76 to 1.86 in nine runs of H100-class nodes of two
boards (TokenPowerBench, arXiv 2512.03024), 1.5 to 1.9 over servers in general."""
NODE_OVER_CHIPS = Band(value=1.9, low=1.5, high=2.2, kind="assumed")
"""As above, with what stands between chip and board."""
ON_CHIP = ("chip", "package")
"""Boundaries inside a board."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intensity:
    """What one token asks for at (q*, s*).

    Attributes:
        flops_per_token: Compute; c_tok.
        energy_joules: Energy at ``boundary``; e_tok.
        boundary: What those joules include.
        mode: Of a full machine, or as it was measured.
    """

    flops_per_token: Band
    energy_joules: Band
    boundary: Boundary
    mode: ModeOfUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """What a site gives.

    Attributes:
        compute_flops: Effective FLOP/s of all machines; K_eff.
        grid_power_watts: Power drawn from the grid.
        pue: Grid power over the power of the machines; 1 or more.
        delivery_fraction: θ; losses between the two that the PUE does not hold.
    """

    compute_flops: Band
    grid_power_watts: Band
    pue: Band
    delivery_fraction: Band = field(default_factory=lambda: exactly(1.0, "given"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Production:
    """What comes of it.

    Attributes:
        compute_ceiling_tokens_per_s: K_eff / c_tok.
        energy_ceiling_tokens_per_s: θ · P_IT / e_tok.
        token_rate_tokens_per_s: The lower of the two, times Φ and U.
        binding_constraint: Which of the two is lower.
        margin_fraction: 1 − lower / higher.
        log_ratio: ln(compute / energy): above 0 power binds.
        elasticities: ∂ ln rate / ∂ ln of power and of compute: 1 of what binds, else 0.
        crossover_power_watts: Grid power at which the two are equal.
        node_energy_joules: e_tok at node scope.
    """

    compute_ceiling_tokens_per_s: Band
    energy_ceiling_tokens_per_s: Band
    token_rate_tokens_per_s: Band
    binding_constraint: Constraint
    margin_fraction: Estimate
    log_ratio: Estimate
    elasticities: Mapping[str, Estimate]
    crossover_power_watts: Band
    node_energy_joules: Band


def node_over(boundary: Boundary) -> Band:
    """Watts of a node over those at a boundary that leaves out the rest of it."""
    return NODE_OVER_CHIPS if boundary in ON_CHIP else NODE_OVER_BOARDS


def node_energy(energy_joules: Band, boundary: Boundary) -> Band:
    """Joules of a token at node scope.

    Raises:
        UsageError: If they are of the facility: the PUE is in them already.
    """
    if boundary == "facility":
        raise UsageError(
            "joules of the facility hold its PUE already, and it would enter twice; give joules of "
            "a board or a node"
        )
    if boundary in ("node", "rack"):
        return energy_joules
    ratio = node_over(boundary)
    drawn = energy_joules.draws("energy_joules") * ratio.draws("node_over_boards")
    return from_draws(energy_joules.value * ratio.value, drawn, worst(energy_joules, ratio))


def produce(
    intensity: Intensity,
    supply: Supply,
    *,
    system_efficiency_ratio: float = 1.0,
    utilisation_fraction: float = 1.0,
) -> Production:
    """Evaluate the function.

    Args:
        intensity: What one token asks for.
        supply: What the site gives.
        system_efficiency_ratio: Φ.
        utilisation_fraction: U.

    Raises:
        UsageError: If Φ or U is given for joules that were measured with them in, the PUE is below
            1, or joules hold a PUE already.
    """
    losses = system_efficiency_ratio * utilisation_fraction
    if intensity.mode == "as_measured" and losses != 1.0:
        raise UsageError(
            f"joules as measured hold the system's efficiency and its utilisation already; "
            f"Φ {system_efficiency_ratio:g} and U {utilisation_fraction:g} would enter twice. "
            f"Leave both out, or take the intrinsic mode"
        )
    if supply.pue.low < 1:
        raise UsageError(f"a PUE of {supply.pue.low:g} is below 1: a site draws what it gives")
    node = node_energy(intensity.energy_joules, intensity.boundary)
    bands = {
        "compute_flops": supply.compute_flops,
        "flops_per_token": intensity.flops_per_token,
        "grid_power_watts": supply.grid_power_watts,
        "pue": supply.pue,
        "delivery_fraction": supply.delivery_fraction,
        "node_energy_joules": node,
    }
    centre = _ceilings({name: np.array([band.value]) for name, band in bands.items()})
    drawn = _ceilings({name: band.draws(name) for name, band in bands.items()})
    kind = worst(*bands.values())
    compute, energy = (
        from_draws(float(value[0]), draws, kind) for value, draws in zip(centre, drawn, strict=True)
    )
    lower = np.minimum(*drawn) * losses
    rate = from_draws(min(compute.value, energy.value) * losses, lower, kind)
    log_ratio, logs = np.log(centre[0] / centre[1]), np.log(drawn[0] / drawn[1])
    bound = (log_ratio > 0).astype(float), (logs > 0).astype(float)
    return Production(
        compute_ceiling_tokens_per_s=compute,
        energy_ceiling_tokens_per_s=energy,
        token_rate_tokens_per_s=rate,
        binding_constraint="energy" if compute.value > energy.value else "compute",
        margin_fraction=_estimate(1 - np.exp(-abs(log_ratio)), 1 - np.exp(-abs(logs))),
        log_ratio=_estimate(log_ratio, logs),
        elasticities={
            "power": _estimate(*bound),
            "compute": _estimate(1 - bound[0], 1 - bound[1]),
        },
        crossover_power_watts=from_draws(
            supply.grid_power_watts.value * float(centre[0][0] / centre[1][0]),
            supply.grid_power_watts.value * drawn[0] / drawn[1],
            kind,
        ),
        node_energy_joules=node,
    )


def _ceilings(x: Mapping[str, Array]) -> tuple[Array, Array]:
    it_watts = x["grid_power_watts"] / x["pue"]
    compute = x["compute_flops"] / x["flops_per_token"]
    return compute, x["delivery_fraction"] * it_watts / x["node_energy_joules"]


def _estimate(centre: Array, drawn: Array) -> Estimate:
    """A number of any sign with the middle 90 % of its draws."""
    low, high = np.quantile(drawn, [(1 - FRACTION) / 2, (1 + FRACTION) / 2])
    value = float(centre[0])
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value))
