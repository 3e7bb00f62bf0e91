"""A step model from what requests measured: arrivals, lengths, first and last tokens.

Two forms of a roofline are tried, with the same five constants, and the better one is kept:

    sum    t = o + max(W, g·(B + P)) + b·B + c·K + κ·g·Q       kernels one after the other
    max    t = o + max(W + b·B + c·K, g·(B + P) + κ·g·(K + Q))  memory and arithmetic overlap

o what a step costs whatever is in it, W moving the weights, g computing a token, b and c what a
request and a token of context add, κ attention's arithmetic per token attended to, over that of a
token (from the model's shape). They are found by replaying all arrivals through the simulator and
comparing TPOT, end-to-end latency and TTFT of the requests that may be looked at: pseudo-Huber
cost, Nelder–Mead from several starts, weak priors in logarithms (a factor of e or more either way)
that keep apart what the data cannot tell apart. An unknown KV capacity is one more constant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize

from wattbench.core.errors import UsageError
from wattbench.routing.fleet import Fleet, KvRule, Machine, Pool
from wattbench.routing.policies import NoOptions, RoundRobin
from wattbench.routing.replay import replay
from wattbench.routing.step import Lane, StepModel
from wattbench.routing.world import Demand

ATTENTION_RATIO = 4e-5
"""κ of a dense transformer: about 1 / (6 · hidden size), for a hidden size of 4,096."""
RELATIVE = np.array([0.1, 0.45, 2e-3, 3e-4, 2.6e-6])
"""Centres of the priors of o, W, g, b, c, over the median TPOT."""
SPREADS = np.array([1.0, 1.2, 1.2, 1.5, 1.5])
"""Their standard deviations, in logarithms."""
CAPACITY_SPREAD, TOLD_SPREAD = 0.3, 0.01
"""Of the KV capacity, inferred or told: blocks make what is told come out a little more or less."""
SCALE = 0.02
"""Residuals beyond this relative size count by their size, not by its square."""
WHOLE_SHARE = 1.0
"""Weight of the median TPOT, mean E2E and mean TTFT themselves, each as of so many requests."""
PLACES, LONG_WAIT_S = 256, 0.5
"""Most requests at once where nobody tells; a wait that is longer than any step's."""
STARTS, FINISHED = 8, 4
"""Starts of each form, and how many of all are carried to the end."""
ROUGH, FINE = ((0.3, 200),), ((0.2, 500), (0.1, 400))
FORMS = ("sum", "max")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Episode:
    """Requests on one machine that is empty at their start; arrays (n,) in order of arrival.

    Attributes:
        arrival_s: When each was queued, from the first on [s].
        input_tokens: Prompts [tokens].
        output_tokens: Answers [tokens].
        first_s: Their first tokens [s].
        last_s: Their last tokens [s].
        known: Which of them may be looked at.
    """

    arrival_s: Array
    input_tokens: Array
    output_tokens: Array
    first_s: Array
    last_s: Array
    known: Array

    @property
    def demand(self) -> Demand:
        """The same as the simulator takes it."""
        return Demand(
            arrival_s=self.arrival_s,
            input_tokens=self.input_tokens.astype(np.int32),
            output_tokens=self.output_tokens.astype(np.int32),
        )

    @property
    def most_held_tokens(self) -> int:
        """Context that all its requests would hold together [tokens]."""
        return int(self.input_tokens.sum() + self.output_tokens.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """How an engine schedules; see `routing.fleet.Machine`.

    ``max_batch`` and ``kv_capacity_tokens`` None: not told, so they are inferred.
    ``attention_ratio`` is κ.
    """

    max_batch: int | None
    max_step_tokens: int
    kv_capacity_tokens: int | None = None
    kv_request_tokens: int = 8
    kv_rule: KvRule = "prompt"
    attention_ratio: float = ATTENTION_RATIO


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFit:
    """What was found.

    Attributes:
        machine: With its step model, without energy.
        form: ``sum`` or ``max``.
        constants: o, W, g, b, c by name [s].
        places_from: Whether the most requests at once is ``told``, ``inferred`` or ``assumed``.
        capacity_tokens: KV capacity, as effective [tokens].
        capacity_from: ``told``, ``inferred``, or ``not binding``: then it is only large enough.
        cost: Of the best start.
    """

    machine: Machine
    form: str
    constants: dict[str, float]
    places_from: str
    capacity_tokens: int
    capacity_from: str
    cost: float


NAMES = ("overhead_s", "weights_s", "token_s", "request_s", "context_token_s")


def step_model(constants: Array, attention_ratio: float, form: str) -> StepModel:
    """The module's equation as lanes."""
    overhead, weights, token, request, context = (float(each) for each in constants)
    base, attended = overhead + weights, attention_ratio * token
    per_request = ((0.0, 0.0), (1.0, request))
    if form == "max":
        return StepModel(
            memory=Lane(tokens=((0.0, base),), batch=per_request, per_context_token=context),
            arithmetic=Lane(
                tokens=((0.0, overhead), (1.0, overhead + token)),
                per_context_token=attended,
                per_attended_token=attended,
            ),
        )
    ridge = weights / token
    return StepModel(
        memory=Lane(
            tokens=((0.0, base), (ridge, base), (ridge + 1e4, base + 1e4 * token)),
            batch=per_request,
            per_context_token=context,
            per_attended_token=attended,
        )
    )


def fit_steps(episodes: Sequence[Episode], limits: EngineLimits) -> StepFit:
    """Find the constants, and the KV capacity where it is not told.

    Raises:
        UsageError: If too few requests may be looked at.
    """
    known = sum(int(each.known.sum()) for each in episodes)
    if known < 10:
        raise UsageError(
            f"{known} requests with a first and a last token are too few to fit a step model; "
            f"10 or more are needed"
        )
    capacity, source, spread = limits.kv_capacity_tokens, "told", TOLD_SPREAD
    seen = _places(episodes)
    places = limits.max_batch or seen
    places_from = "told" if limits.max_batch else "inferred" if seen else "assumed"
    limits = replace(limits, max_batch=places or PLACES)
    if capacity is None and seen is not None and limits.max_batch == seen:
        capacity = 2 * max(each.most_held_tokens for each in episodes)
        source, spread = "not binding", 0.0
    if capacity is None:
        capacity, spread = _capacity(episodes, limits), CAPACITY_SPREAD
        source = "inferred"
    if capacity is None:
        capacity, source, spread = (
            2 * max(each.most_held_tokens for each in episodes),
            "not binding",
            0.0,
        )
    searches = [_Search(episodes, limits, (capacity, spread), form) for form in FORMS]
    tries = [(*each.begin(start), each) for each in searches for start in range(STARTS)]
    best = sorted(tries, key=lambda found: found[0])[:FINISHED]
    ends = [(*each.descend(logs, *FINE), each) for _, logs, each in best]
    least, logs, search = min(ends, key=lambda found: found[0])
    machine = search.machine(logs)
    return StepFit(
        machine=machine,
        form=search.form,
        constants=dict(zip(NAMES, np.exp(logs[:5]).tolist(), strict=True)),
        places_from=places_from,
        capacity_tokens=machine.kv_capacity_tokens,
        capacity_from=source,
        cost=least,
    )


def replayed(machine: Machine, demand: Demand) -> tuple[Any, Array]:
    """The requests' records after a replay on one machine, and when each was admitted [s]."""
    fleet = Fleet(pools=(Pool(machine=machine, count=1, site="site"),))
    world = replay(fleet, demand, RoundRobin(NoOptions(), fleet, 0)).world
    return world.requests, demand.arrival_s + world.requests["wait_s"]


class _Search:
    """The cost of constants, in logarithms, and the search for the least."""

    def __init__(
        self,
        episodes: Sequence[Episode],
        limits: EngineLimits,
        capacity_and_spread: tuple[int, float],
        form: str,
    ) -> None:
        capacity, spread = capacity_and_spread
        self.limits, self.form = limits, form
        self.capacity, self.free = capacity, spread > 0
        self.episodes = [(each, each.demand) for each in episodes]
        self.least = (
            max(int((each.input_tokens + each.output_tokens).max()) for each in episodes)
            + limits.kv_request_tokens
        )
        tpot_s = np.concatenate([_tpot_s(each, each.first_s, each.last_s) for each in episodes])
        self.centre = np.log(RELATIVE * float(np.median(tpot_s)))
        self.spread = SPREADS
        if self.free:
            self.centre = np.append(self.centre, math.log(capacity))
            self.spread = np.append(SPREADS, spread)

    def machine(self, logs: Array) -> Machine:
        """The machine that constants mean."""
        capacity = int(np.exp(logs[5])) if self.free else self.capacity
        return Machine(
            name="engine",
            step=step_model(np.exp(logs[:5]), self.limits.attention_ratio, self.form),
            max_batch=self.limits.max_batch or PLACES,
            max_step_tokens=self.limits.max_step_tokens,
            kv_capacity_tokens=max(capacity, self.least),
            kv_request_tokens=self.limits.kv_request_tokens,
            kv_rule=self.limits.kv_rule,
            idle_watts=0.0,
        )

    def cost(self, logs: Array) -> float:
        """Pseudo-Huber of the residuals, and the priors."""
        machine = self.machine(logs)
        total = float((((logs - self.centre) / self.spread) ** 2).sum())
        for episode, demand in self.episodes:
            found, _ = replayed(machine, demand)
            residuals = _residuals(episode, found["first_s"], found["finish_s"])
            total += float(2 * (np.sqrt(1 + (residuals / SCALE) ** 2) - 1).sum())
        return total if math.isfinite(total) else 1e300

    def begin(self, start: int) -> tuple[float, Array]:
        """A rough descent from the centre, or from a point around it that ``start`` draws."""
        at = self.centre.copy()
        if start:
            at[:5] += np.random.default_rng(start).normal(0.0, 0.5, 5)
        at[:5] += math.log(self._pace_ratio(at))
        return self.descend(at, *ROUGH)

    def descend(self, at: Array, *stages: tuple[float, int]) -> tuple[float, Array]:
        """Nelder–Mead, anew for each stage: the simplex's size in logarithms, evaluations."""
        for size, most in stages:
            simplex = np.vstack([at, *(at + size * side for side in np.eye(len(at)))])
            found = minimize(
                self.cost,
                at,
                method="Nelder-Mead",
                options={
                    "maxfev": most,
                    "xatol": 1e-4,
                    "fatol": 1e-3,
                    "initial_simplex": simplex,
                },
            )
            at = found.x
        return float(found.fun), at

    def _pace_ratio(self, logs: Array) -> float:
        """Measured over simulated median TPOT."""
        episode, demand = self.episodes[0]
        found, _ = replayed(self.machine(logs), demand)
        simulated = _tpot_s(episode, found["first_s"], found["finish_s"])
        return float(
            np.median(_tpot_s(episode, episode.first_s, episode.last_s)) / np.median(simulated)
        )


def _tpot_s(episode: Episode, first_s: Array, last_s: Array) -> Array:
    """Of the known requests with more than one token [s]."""
    many = episode.known & (episode.output_tokens > 1)
    return (last_s - first_s)[many] / (episode.output_tokens[many] - 1)


def _residuals(episode: Episode, first_s: Array, last_s: Array) -> Array:
    """Relative differences: TPOT and E2E each of its own, TTFT of the mean one; of the whole."""
    known, arrival_s = episode.known, episode.arrival_s
    ttft_s = (first_s - arrival_s)[known], (episode.first_s - arrival_s)[known]
    e2e_s = (last_s - arrival_s)[known], (episode.last_s - arrival_s)[known]
    tpot_s = (
        _tpot_s(episode, first_s, last_s),
        _tpot_s(episode, episode.first_s, episode.last_s),
    )
    whole = [
        np.median(tpot_s[0]) / np.median(tpot_s[1]),
        e2e_s[0].mean() / e2e_s[1].mean(),
        ttft_s[0].mean() / ttft_s[1].mean(),
    ]
    return np.concatenate(
        [
            np.log(tpot_s[0] / tpot_s[1]),
            np.log(e2e_s[0] / e2e_s[1]),
            (ttft_s[0] - ttft_s[1]) / ttft_s[1].mean(),
            np.repeat(np.log(whole), max(1, round(WHOLE_SHARE * known.sum()))),
        ]
    )


def _places(episodes: Sequence[Episode]) -> int | None:
    """How many ran while others waited, if that was one number, give or take one, mostly."""
    counts = [each for episode in episodes for each, _ in _crowded(episode)]
    if not counts:
        return None
    usual = int(np.bincount(counts).argmax())
    return usual if np.mean([abs(count - usual) <= 1 for count in counts]) > 0.8 else None


def _crowded(episode: Episode) -> list[tuple[int, float]]:
    """Requests running, and the context that they hold, at first tokens while others waited.

    An answer is taken to grow evenly. Only known requests count.
    """
    known = known_of(episode)
    found = []
    for at_s in np.sort(known.first_s)[1:]:
        running = (known.first_s <= at_s) & (known.last_s > at_s)
        if ((known.arrival_s < at_s - LONG_WAIT_S) & (known.first_s > at_s)).any():
            share = (at_s - known.first_s) / np.maximum(known.last_s - known.first_s, 1e-9)
            held = known.input_tokens + share * known.output_tokens
            found.append((int(running.sum()), float(held[running].sum())))
    return found


def _capacity(episodes: Sequence[Episode], limits: EngineLimits) -> int | None:
    """The most context that was held while requests waited though places were free; None: never."""
    most = 0
    for episode in episodes:
        for count, held in _crowded(episode):
            if count < 0.9 * (limits.max_batch or PLACES):
                most = max(most, int(held + limits.kv_request_tokens * count))
    return most or None


def known_of(episode: Episode) -> Episode:
    """Only the known requests of an episode."""
    known = episode.known
    return replace(
        episode,
        **{
            name: getattr(episode, name)[known]
            for name in (
                "arrival_s",
                "input_tokens",
                "output_tokens",
                "first_s",
                "last_s",
                "known",
            )
        },
    )
