"""Formulas for joules per token against concurrency, each fitted to one sweep alone.

They are references beside the pooled process: simple enough for paper, and what it must beat on
points that neither has seen. All are fitted to relative errors, with coefficients of zero or more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from scipy.special import expit

from wattbench.tpf.arrays import Array
from wattbench.tpf.process import Process
from wattbench.tpf.table import Table

_EXPONENTS = np.linspace(0.1, 2.0, 39)
_MIDPOINTS = np.linspace(-1.0, 11.0, 25)
_GROWTHS = np.geomspace(1e-4, 3.0, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A formula.

    Attributes:
        name: As it is written, with B the concurrency.
        source: Where it comes from.
        points: Fewest points that it can be fitted to.
        fit: Concurrencies and joules to parameters, all positive or zero.
        joules: Parameters and concurrencies to joules.
    """

    name: str
    source: str
    points: int
    fit: Callable[[Array, Array], dict[str, float]]
    joules: Callable[[dict[str, float], Array], Array]


def _two(first: Array, second: Array) -> tuple[Array, Array, Array]:
    """Coefficients of two columns that come nearest to 1, and how far they stay off.

    Args:
        first: Candidates of one column over the joules, shape (k, n).
        second: Of the other.

    Returns:
        Both coefficients, zero or more, and the sum of squares, each of shape (k,).
    """
    uu, vv, uv = (first**2).sum(1), (second**2).sum(1), (first * second).sum(1)
    u, v = first.sum(1), second.sum(1)
    # Columns that are one and the same have no determinant: one of them alone does as well.
    det = np.maximum(uu * vv - uv**2, 1e-12 * uu * vv)
    both = np.stack([(u * vv - v * uv) / det, (v * uu - u * uv) / det])
    alone = [np.stack([u / uu, 0 * u]), np.stack([0 * v, v / vv])]
    tried = np.stack([np.where((both >= 0).all(0), both, np.inf), *alone])
    with np.errstate(invalid="ignore"):
        off = ((tried[:, 0, :, None] * first + tried[:, 1, :, None] * second - 1) ** 2).sum(2)
    best = np.argmin(np.where(np.isfinite(off), off, np.inf), axis=0)
    chosen = tried[best, :, np.arange(len(u))]
    return chosen[:, 0], chosen[:, 1], off[best, np.arange(len(u))]


def _hyperbola(b: Array, joules: Array) -> dict[str, float]:
    a, once, _ = _two((1 / joules)[None], (1 / b / joules)[None])
    return {"a": float(a[0]), "b": float(once[0])}


def _power(b: Array, joules: Array) -> dict[str, float]:
    columns = b ** -_EXPONENTS[:, None] / joules
    a, once, off = _two(np.broadcast_to(1 / joules, columns.shape), columns)
    best = int(np.argmin(off))
    return {"a": float(a[best]), "b": float(once[best]), "c": float(_EXPONENTS[best])}


def _turning(b: Array, joules: Array) -> dict[str, float]:
    columns = np.stack([np.ones_like(b), 1 / b, b], axis=1) / joules[:, None]
    (a, once, more), _ = nnls(columns, np.ones(len(joules)))
    return {"a": float(a), "b": float(once), "d": float(more)}


def _logistic(b: Array, joules: Array) -> dict[str, float]:
    """Best of a grid over the two parameters that are not linear."""
    midpoints, growths = (grid.ravel()[:, None] for grid in np.meshgrid(_MIDPOINTS, _GROWTHS))
    step = (1 + growths * b) / b / joules
    rise = expit(np.log2(b) - midpoints)
    idle, more, off = _two(step * (1 - rise), step * rise)
    best = int(np.argmin(off))
    return {
        "E0": float(idle[best]),
        "E1": float(more[best]),
        "x0": float(midpoints[best, 0]),
        "h": float(growths[best, 0]),
    }


def _logistic_joules(p: dict[str, float], b: Array) -> Array:
    rise = expit(np.log2(b) - p["x0"])
    return np.asarray((p["E0"] + (p["E1"] - p["E0"]) * rise) * (1 + p["h"] * b) / b)


FORMS = (
    Form(
        name="a + b/B",
        source="a step's fixed joules shared by its users: roofline of decoding",
        points=2,
        fit=_hyperbola,
        joules=lambda p, b: p["a"] + p["b"] / b,
    ),
    Form(
        name="a + b/B^c",
        source="the same, the share falling slower or faster than the users grow",
        points=3,
        fit=_power,
        joules=lambda p, b: p["a"] + p["b"] * b ** -p["c"],
    ),
    Form(
        name="a + b/B + d·B",
        source="turns up where more users lengthen the step more than they share it",
        points=3,
        fit=_turning,
        joules=lambda p, b: p["a"] + p["b"] / b + p["d"] * b,
    ),
    Form(
        name="(E0 + (E1 − E0)/(1 + exp(x0 − log2 B)))·(1 + h·B)/B",
        source="logistic power (Hassan et al., arXiv 2602.05116, eq. 2) over an affine step "
        "(The 1/W Law, arXiv 2603.17280)",
        points=5,
        fit=_logistic,
        joules=_logistic_joules,
    ),
)


def left_out_errors(form: Form, b: Array, joules: Array) -> Array:
    """Relative error at each interior point of a sweep, fitted without it; NaN if too few."""
    errors = np.full(max(len(b) - 2, 0), np.nan)
    if len(b) - 1 < form.points:
        return errors
    for place in range(1, len(b) - 1):
        rest = np.arange(len(b)) != place
        found = form.fit(b[rest], joules[rest])
        errors[place - 1] = form.joules(found, b[place : place + 1])[0] / joules[place] - 1
    return errors


POOLED = "pooled"
"""Name of the process over all sweeps, beside the formulas."""


def form_errors(table: Table, process: Process) -> dict[str, Array]:
    """Relative error of each form at each interior point, left out; NaN elsewhere.

    The process keeps the parameters that were fitted with the point: `leave_one_out` does not.
    """
    errors = {POOLED: np.full(len(table), np.nan)}
    errors |= {form.name: np.full(len(table), np.nan) for form in FORMS}
    joules = table.energy_per_output_token_joules
    for rows in table.groups().values():
        inside = rows[1:-1]
        left = process.left_out([np.array([row]) for row in inside])
        errors[POOLED][inside] = np.exp(left.log[inside]) / joules[inside] - 1
        for form in FORMS:
            errors[form.name][inside] = left_out_errors(
                form, table.concurrency_count[rows], joules[rows]
            )
    return errors


def best_form(errors: dict[str, Array]) -> str:
    """The form that is off least: smallest median of left-out points that all could be tried on."""
    tried = {name: np.abs(off[np.isfinite(off)]) for name, off in errors.items()}
    most = max(len(off) for off in tried.values())
    medians = {name: np.median(off) for name, off in tried.items() if most and len(off) == most}
    return min(medians, key=lambda name: medians[name]) if medians else POOLED


def formula_of(points: Table, errors: dict[str, Array]) -> dict[str, str | float]:
    """The formula that is off least on a sweep, for paper, fitted to all of its points."""
    tried = {name: off for name, off in errors.items() if name != POOLED}
    name = best_form(tried)
    form = next((form for form in FORMS if form.name == name), FORMS[0])
    found = form.fit(points.concurrency_count, points.energy_per_output_token_joules)
    return {"formula": form.name, **found}
