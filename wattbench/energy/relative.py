"""Two energies of one device: what their ratio is sure of.

    E_A / E_B = (R_A (1 + g) + o T_A) / (R_B (1 + g) + o T_B)
              ≈ (R_A / R_B) · (1 + o · (T_A / R_A − T_B / R_B))

The unknown gain g is the same in both and cancels; an unknown offset o cancels as far as both
draw the same mean power. What remains of it, and the edges, is the error of a comparison, which
is far better known than either energy. Between different devices nothing cancels.
"""

from __future__ import annotations

import math

from wattbench.core.energy import EnergyMeasurement


def relative_error_fractions(
    ours: EnergyMeasurement, other: EnergyMeasurement
) -> tuple[tuple[float, ...], float]:
    """Error terms of the ratio of two energies.

    Args:
        ours: Energy above the line.
        other: Energy below it.

    Returns:
        Half-widths of uniform terms, and the standard deviation of a normal one, relative to the
        ratio.
    """
    gains = (_shares(ours, "gain_half_widths_joules"), _shares(other, "gain_half_widths_joules"))
    offsets = (
        _shares(ours, "offset_half_widths_joules"),
        _shares(other, "offset_half_widths_joules"),
    )
    if ours.domains == other.domains and ours.devices == other.devices:
        uniform = [abs(a - b) for pair in (gains, offsets) for a, b in zip(*pair, strict=True)]
    else:
        uniform = [share for pair in (gains, offsets) for side in pair for share in side]
    for side in (ours, other):
        uniform.append(side.coverage_half_width_joules / side.energy_joules)
        uniform.append(side.alignment_half_width_joules / side.energy_joules)
    edges = [side.edge_joules / side.energy_joules for side in (ours, other)]
    return tuple(uniform), math.hypot(*edges)


def _shares(energy: EnergyMeasurement, name: str) -> tuple[float, ...]:
    return tuple(width / energy.energy_joules for width in getattr(energy, name))
