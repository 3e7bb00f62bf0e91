"""Formulas for joules per token against concurrency, each fitted to one sweep alone.

They are references beside the pooled process: simple enough for paper, and what it must beat on
points that neither has seen. All are fitted to relative errors, with coefficients of zero or more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares, nnls
from scipy.special import expit

from wattbench.tpf.arrays import Array
from wattbench.tpf.process import Process
from wattbench.tpf.table import Table

_EXPONENTS = np.linspace(0.1, 2.0, 39)


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


def _linear(columns: list[Array], joules: Array) -> tuple[Array, Array]:
    """Coefficients and sum of squared relative errors."""
    found, off = nnls(np.stack(columns, axis=1) / joules[:, None], np.ones(len(joules)))
    return found, off


def _hyperbola(b: Array, joules: Array) -> dict[str, float]:
    (a, once), _ = _linear([np.ones_like(b), 1 / b], joules)
    return {"a": float(a), "b": float(once)}


def _power(b: Array, joules: Array) -> dict[str, float]:
    fits = [(_linear([np.ones_like(b), b**-c], joules), c) for c in _EXPONENTS]
    ((a, once), _), c = min(fits, key=lambda each: each[0][1])
    return {"a": float(a), "b": float(once), "c": float(c)}


def _turning(b: Array, joules: Array) -> dict[str, float]:
    (a, once, more), _ = _linear([np.ones_like(b), 1 / b, b], joules)
    return {"a": float(a), "b": float(once), "d": float(more)}


def _logistic(b: Array, joules: Array) -> dict[str, float]:
    """By least squares on logarithms, from the published H100 figures scaled to the data."""
    start = np.log([1.0, 2.0, 4.2, 0.1])
    start[0] = np.log(np.median(joules / _logistic_joules(_named(start), b)))

    def off(logs: Array) -> Array:
        return np.asarray(np.log(_logistic_joules(_named(logs), b) / joules))

    return _named(least_squares(off, start, max_nfev=200).x)


def _named(logs: Array) -> dict[str, float]:
    names = ("idle_joules", "power_ratio", "x0", "h")
    return dict(zip(names, (float(value) for value in np.exp(np.clip(logs, -30, 30))), strict=True))


def _logistic_joules(p: dict[str, float], b: Array) -> Array:
    rise = expit(np.log2(b) - p["x0"])
    return np.asarray(p["idle_joules"] * (1 + (p["power_ratio"] - 1) * rise) * (1 + p["h"] * b) / b)


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
        name="E0·(1 + (r−1)/(1 + exp(x0 − log2 B)))·(1 + h·B)/B",
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
