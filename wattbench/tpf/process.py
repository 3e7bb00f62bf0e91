"""The pooled function: a Gaussian process fitted to every sweep at once.

The parameters maximise the likelihood of the table, drawn weakly to their start. A band is the
process's own standard deviation times a factor that makes left-out points of the same table fall
inside nine times out of ten; without enough of them it is that of a normal distribution.

Source: Rasmussen and Williams, *Gaussian Processes for Machine Learning*, equations 2.25, 2.26,
5.8, 5.9 and 5.12; its form for whole groups is Ginsbourger and Schärer, arXiv 2101.03108. Rows far
from all others count less: noise of a Student t distribution (Lange et al., JASA 84, 1989).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from wattbench.tpf.arrays import Array, Scalar
from wattbench.tpf.covariance import (
    Part,
    covariance,
    likeness,
    parts_for,
    start_of,
    terms,
)
from wattbench.tpf.table import Table

FIT_ROWS = 400
"""More rows than these are fitted on whole sweeps drawn from them: time grows with the cube."""
DEGREES = 6.0
"""Of freedom of the noise: now and then a row is far off, and must not bend its neighbours."""
ROUNDS = 2
BLOCK_ROWS = 200
PULL = 1.0
"""Weight of a parameter's distance from its start: one standard deviation is a factor of e."""
NORMAL_90 = 1.6449
FACTOR_LIMITS = (0.7 * NORMAL_90, 2.5 * NORMAL_90)
SEEN_QUANTILE = 0.91
"""Of distances whose parameters were fitted to the same rows; 0.90 of rows that nobody saw."""
ENOUGH = 20
"""Left-out points that a factor of a band needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """Logarithms of what a table asks for.

    Attributes:
        log: Mean of the logarithm, shape (n,).
        log_sd: Its standard deviation, the noise of one measurement with it, shape (n,).
    """

    log: Array
    log_sd: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A fitted process.

    Attributes:
        table: What it was fitted to.
        target: Logarithms of the fitted quantity, shape (n,).
        parts: Terms of its covariance.
        logs: Logarithms of their parameters, the noise last.
        inverse: Inverse of the covariance of the table.
        weights: ``inverse @ (target − level)``.
        level: Mean of the target.
        trust: How much each row counts against the noise of a common one; less for one that is far
            from what all others say.
    """

    table: Table
    target: Array
    parts: tuple[Part, ...]
    logs: Array
    inverse: Array
    weights: Array
    level: Scalar
    trust: Array

    def predict(self, rows: Table) -> Predicted:
        """The function at some rows, with what is known of each."""
        across = _matrix(self.parts, rows, self.table, self.logs)
        each = np.arange(len(rows))
        own = covariance(self.parts, likeness(self.parts, (rows, rows), each, each), self.logs)
        left = own - ((across @ self.inverse) * across).sum(1)
        noise = np.exp(2 * self.logs[-1])
        log_sd = np.sqrt(np.maximum(left, 0.0) + noise)
        return Predicted(log=self.level + across @ self.weights, log_sd=log_sd)

    def explained(self) -> list[dict[str, float | str]]:
        """Each part's name, its standard deviation in logarithms, and its length scale."""
        found: list[dict[str, float | str]] = []
        place = 0
        for part in self.parts:
            values = np.exp(self.logs[place : place + len(part.start)])
            names = ("log_sd", "length")[: len(values)]
            numbers = dict(zip(names, (float(value) for value in values), strict=True))
            found.append({"name": part.name, "kind": part.kind, **numbers})
            place += len(part.start)
        return [*found, {"name": "noise", "kind": "level", "log_sd": float(np.exp(self.logs[-1]))}]

    def left_out(self, groups: Sequence[np.ndarray]) -> Predicted:
        """Predict each group of rows from all the others, in closed form."""
        log, log_sd = np.full(len(self.target), np.nan), np.full(len(self.target), np.nan)
        for rows in groups:
            block = np.linalg.inv(self.inverse[np.ix_(rows, rows)])
            log[rows] = self.target[rows] - block @ self.weights[rows]
            # What is left out is as noisy as any, whatever its own distance said of it.
            own = np.exp(2 * self.logs[-1]) * (1 - 1 / self.trust[rows])
            log_sd[rows] = np.sqrt(np.diag(block) + own)
        return Predicted(log=log, log_sd=log_sd)

    def factor(self, groups: Sequence[np.ndarray]) -> Scalar:
        """Half-width of a 90 % band in standard deviations, from rows left out in groups."""
        found = self.left_out(groups)
        z = np.abs(found.log - self.target) / found.log_sd
        z = z[np.isfinite(z)]
        if len(z) < ENOUGH or len(groups) < 3:
            return np.float64(NORMAL_90)
        rank = min(1.0, SEEN_QUANTILE * (1 + 1 / len(z)))
        return np.float64(np.clip(np.quantile(z, rank), *FACTOR_LIMITS))


def fit_process(
    table: Table, target: Array, *, parts: Sequence[Part] | None = None, seed: int = 0
) -> Process:
    """Fit the process to a table.

    Args:
        table: The rows.
        target: Logarithm of what is fitted, shape (n,).
        parts: Terms of the covariance; those that the table can tell apart if None.
        seed: Of the draw of sweeps that a large table is fitted on.
    """
    chosen = tuple(parts if parts is not None else parts_for(table))
    rows = _rows_to_fit(table, seed)
    level = np.mean(target)
    some, trust = table.take(rows), np.ones(len(rows))
    logs = start_of(chosen)
    for _ in range(ROUNDS):
        logs = _likeliest(chosen, some, target[rows] - level, trust, logs)
        trust = _trusted(_conditioned(some, target[rows], (chosen, logs, level), trust))
    whole = np.ones(len(table))
    whole[rows] = trust
    return _conditioned(table, target, (chosen, logs, level), whole)


def on_other_rows(process: Process, table: Table, target: Array, trust: Array) -> Process:
    """The process with the parameters that it has, knowing other rows instead of its own."""
    return _conditioned(table, target, (process.parts, process.logs, process.level), trust)


def _trusted(process: Process) -> Array:
    """Weights of a Student t distribution of `DEGREES`, from each row's distance to the curve."""
    variance = np.exp(2 * process.logs[-1]) / process.trust
    off = variance * process.weights
    left = variance - variance**2 * np.diag(process.inverse)
    squares = (off**2 + np.maximum(left, 0.0)) / np.exp(2 * process.logs[-1])
    return np.asarray((DEGREES + 1) / (DEGREES + squares))


def _conditioned(
    table: Table, target: Array, fitted: tuple[tuple[Part, ...], Array, Scalar], trust: Array
) -> Process:
    parts, logs, level = fitted
    full = _matrix(parts, table, table, logs)
    full[np.diag_indices(len(table))] += np.exp(2 * logs[-1]) / trust
    inverse = cho_solve(cho_factor(full, lower=True), np.eye(len(table)))
    return Process(
        table=table,
        target=target,
        parts=parts,
        logs=logs,
        inverse=inverse,
        weights=inverse @ (target - level),
        level=level,
        trust=trust,
    )


def _rows_to_fit(table: Table, seed: int) -> np.ndarray:
    groups = list(table.groups().values())
    if len(table) <= FIT_ROWS:
        return np.arange(len(table))
    chosen: list[int] = []
    for place in np.random.default_rng(seed).permutation(len(groups)):
        chosen += [int(row) for row in groups[place]]
        if len(chosen) >= FIT_ROWS:
            break
    return np.array(sorted(chosen))


def _matrix(parts: Sequence[Part], rows: Table, others: Table, logs: Array) -> Array:
    """Covariance of every row with every other, a block of rows at a time: pairs take memory."""
    blocks = []
    for begin in range(0, len(rows), BLOCK_ROWS):
        some = rows.take(np.arange(begin, min(begin + BLOCK_ROWS, len(rows))))
        first, second = (grid.ravel() for grid in np.indices((len(some), len(others))))
        like = likeness(parts, (some, others), first, second)
        blocks.append(covariance(parts, like, logs).reshape(len(some), len(others)))
    return np.concatenate(blocks)


def _likeliest(
    parts: Sequence[Part], table: Table, target: Array, trust: Array, begin: Array
) -> Array:
    """Logarithms of the parameters; every pair of rows is looked at once."""
    size = len(target)
    pairs = np.triu_indices(size)
    like = likeness(parts, (table, table), *pairs)
    start = start_of(parts)

    def cost(logs: Array) -> tuple[float, Array]:
        full = np.zeros((size, size))
        full[pairs] = covariance(parts, like, logs)
        noise = np.exp(2 * logs[-1])
        full[np.diag_indices(size)] += noise / trust
        try:
            factor = cho_factor(full, lower=False, check_finite=False)
        except LinAlgError:
            return 1e10, np.zeros_like(logs)
        inverse = cho_solve(factor, np.eye(size), check_finite=False)
        weights = inverse @ target
        value = target @ weights / 2 + np.log(np.diag(factor[0])).sum()
        outer = inverse - np.outer(weights, weights)
        # A pair off the diagonal stands for two entries: twice the half of equation 5.9.
        halves = outer[pairs] * np.where(pairs[0] == pairs[1], 0.5, 1.0)
        slope = [
            float(halves[where] @ each)
            for where, (_, along) in zip(like.where, terms(parts, like, logs), strict=True)
            for each in along
        ]
        pull = PULL * (logs - start)
        gradient = np.array([*slope, noise * (np.diag(outer) / trust).sum()]) + pull
        return float(value + pull @ (logs - start) / 2), gradient

    bounds = [(value - 4, value + 3) for value in start]
    options = {"maxiter": 60, "ftol": 1e-7}
    # Matrices of a few hundred rows: threads wait for each other longer than they work.
    with threadpool_limits(limits=1):
        found = minimize(cost, begin, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.asarray(found.x)
