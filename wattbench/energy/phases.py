"""How much of the energy read prompts and how much wrote answers, where that can be told.

Over many short windows of a steady load,

    E_w − P_idle · t_w = α · prompt tokens + β · answer tokens + γ · engine steps + ε_w

by least squares. A step costs energy whatever its batch, so answer tokens alone would not do. The
prefill energy is α times all prompt tokens, decode is the rest of the energy above idle.

Prompts may come so regularly that they carry no information of their own; then there is no
answer, and none is given: their variance inflation factor, 1 / (1 − R²) of a fit of the prompt
tokens by the other regressors, must stay below ``MAX_VIF_RATIO``, and the interval of α must not
reach 0. Against machines of known energy the split is right within ``MODEL_FRACTION`` of the
prefill energy, which is added to its error.

Source: Belsley, Kuh, Welsch, *Regression Diagnostics*, 1980, chapter 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wattbench.core.energy import FloatArray, Unmeasured

MAX_VIF_RATIO = 30.0
MIN_WINDOWS = 10
MODEL_FRACTION = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseEnergy:
    """Energy above idle by phase.

    Attributes:
        prefill_joules: Energy of reading prompts [J].
        decode_joules: Energy of writing answers [J].
        sd_joules: Standard error of both, from the scatter of the windows [J].
        model_half_width_joules: Uniform half-width of both, from the model of a step [J].
        vif_ratio: Variance inflation factor of the prompt tokens.
    """

    prefill_joules: float
    decode_joules: float
    sd_joules: float
    model_half_width_joules: float
    vif_ratio: float


def phase_energy(
    active_joules: FloatArray,
    prompt_tokens: FloatArray,
    answer_tokens: FloatArray,
    step_count: FloatArray,
) -> PhaseEnergy | Unmeasured:
    """Split the energy of windows into phases.

    Args:
        active_joules: Shape (n,), energy of each window above loaded idle [J].
        prompt_tokens: Shape (n,), prompt tokens read in each [tokens].
        answer_tokens: Shape (n,), answer tokens written in each [tokens].
        step_count: Shape (n,), engine steps in each.

    Returns:
        ``Unmeasured`` with reason ``too_few_windows`` or ``collinear`` where it cannot be told.
    """
    n = len(active_joules)
    if n < MIN_WINDOWS:
        message = f"the phases take {MIN_WINDOWS} windows of half a second, there are {n}"
        return Unmeasured(reason="too_few_windows", message=message)
    design = np.column_stack([prompt_tokens, answer_tokens, step_count]).astype(np.float64)
    vif = _vif_of_first(design)
    fit, _, rank, _ = np.linalg.lstsq(design, active_joules, rcond=None)
    rest = active_joules - design @ fit
    variance = float(rest @ rest) / max(1, n - int(rank))
    sd = float(np.sqrt(max(0.0, variance * np.linalg.pinv(design.T @ design)[0, 0])))
    if vif > MAX_VIF_RATIO or fit[0] <= 2 * sd:
        message = f"prompts and answers rise and fall together (VIF {vif:.0f})"
        return Unmeasured(reason="collinear", message=message)
    prompts = float(design[:, 0].sum())
    prefill = float(fit[0]) * prompts
    return PhaseEnergy(
        prefill_joules=prefill,
        decode_joules=float(active_joules.sum()) - prefill,
        sd_joules=sd * prompts,
        model_half_width_joules=MODEL_FRACTION * prefill,
        vif_ratio=vif,
    )


def _vif_of_first(design: FloatArray) -> float:
    """Variance inflation factor of the first column; infinite if the others explain it."""
    first, others = design[:, 0], design[:, 1:]
    if not first.any():
        return float("inf")
    fit, *_ = np.linalg.lstsq(others, first, rcond=None)
    unexplained = first - others @ fit
    share = float(unexplained @ unexplained) / float(first @ first)
    return 1.0 / share if share > 1e-12 else float("inf")
