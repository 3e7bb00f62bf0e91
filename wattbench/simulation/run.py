"""Every policy under every seed, here or in other processes, up to one horizon."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from wattbench.core.errors import UsageError
from wattbench.routing.compiled import is_kept
from wattbench.routing.fleet import Fleet, Machine, Pool
from wattbench.routing.policies import BuiltIn, LeastOutstanding, NoOptions, RoundRobin
from wattbench.routing.replay import Replay, replay
from wattbench.routing.step import StepModel, affine
from wattbench.routing.world import Demand
from wattbench.simulation.demand import demand_of
from wattbench.simulation.figures import (
    Figures,
    Times,
    energy_figures,
    request_figures,
    times_of,
)
from wattbench.simulation.plan import Plan
from wattbench.simulation.scenario import policy
from wattbench.traces import Trace

MANY_REQUESTS = 2_000_000
"""From so many requests over all replays on, processes are worth their start."""
LARGE = (
    *("requests", "heaps", "queues", "child", "sibling", "think_s", "due_s", "due", "legs"),
    *("slots", "prompts", "blocks"),
)
KERNELS = ("router.deal", "router.route", "scaling.close")
Progress = Callable[[int, int], None]
"""Is told how many requests are done, and of how many."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Played:
    """One policy under one seed.

    Attributes:
        policy: Its name with options.
        seed: The seed.
        run: The replay; its requests are left out unless they were asked for.
        times: Of its requests, if they were asked for.
        figures: Of its requests; with those of its machines once it was closed.
        end_s: Its last completion [s].
        wall_s: What the replay took [s].
    """

    policy: str
    seed: int
    run: Replay
    times: Times | None
    figures: Figures
    end_s: float
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """Every replay of a plan, all closed at one horizon.

    Attributes:
        plan: What was replayed.
        traces: The trace under each seed.
        played: By policy, then by seed, in the order of the plan.
        horizon_s: Up to when machines idled [s].
    """

    plan: Plan
    traces: tuple[Trace, ...]
    played: tuple[Played, ...]
    horizon_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Task:
    plan: Plan
    policy: str
    seed: int
    demand: Demand
    slo_class: Any
    keep: bool


def play(
    plan: Plan,
    *,
    workers: int | None = None,
    keep_requests: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Replay a plan.

    Args:
        plan: What.
        workers: Processes; None: one, or as many as there are processors for a large plan. The
            results are the same.
        keep_requests: Whether requests are kept, not only their figures.
        progress: Is told how far it is.

    Raises:
        UsageError: If a trace is broken or does not fit the fleet.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"workers = {workers}; one or more are due")
    traces = tuple(plan.traces(seed) for seed in plan.seeds)
    plan = replace(plan, class_names=traces[0].class_names)
    total = sum(len(trace) for trace in traces) * len(plan.policies)
    tasks = _tasks(plan, traces, keep_requests)
    count = len(plan.seeds) * len(plan.policies)
    if workers is None:
        workers = (os.cpu_count() or 1) if total >= MANY_REQUESTS else 1
    runner = _here if min(workers, count) == 1 else _apart
    report = progress or (lambda _done, _total: None)
    found = list(runner(tasks, min(workers, count), report, total))
    order = {text: place for place, text in enumerate(plan.policies)}
    found.sort(key=lambda each: (order[each.policy], plan.seeds.index(each.seed)))
    horizon_s = max(plan.horizon_s, *(each.end_s for each in found))
    played = tuple(_closed(plan, each, horizon_s) for each in found)
    return Outcome(plan=plan, traces=traces, played=played, horizon_s=horizon_s)


def _tasks(plan: Plan, traces: tuple[Trace, ...], keep: bool) -> Iterator[_Task]:
    bare = replace(plan, traces=_no_traces)
    for seed, trace in zip(plan.seeds, traces, strict=True):
        demand = demand_of(trace, plan.promises, plan.lengths, seed)
        for text in plan.policies:
            yield _Task(
                plan=bare,
                policy=text,
                seed=seed,
                demand=demand,
                slo_class=trace.slo_class,
                keep=keep,
            )


def _no_traces(seed: int) -> Trace:
    raise LookupError(f"the trace of seed {seed} travels apart")


def _here(tasks: Iterator[_Task], _workers: int, report: Progress, total: int) -> Iterator[Played]:
    done = 0
    for task in tasks:
        before = done
        yield _played(task, lambda count, before=before: report(before + count, total))  # type: ignore[misc]
        done += task.demand.count
        report(done, total)


def _apart(tasks: Iterator[_Task], workers: int, report: Progress, total: int) -> Iterator[Played]:
    done = 0
    context = multiprocessing.get_context("spawn")
    with _one_thread(), ProcessPoolExecutor(workers, mp_context=context) as executor:
        futures = [(task.demand.count, executor.submit(_played, task)) for task in tasks]
        for count, future in futures:
            yield future.result()
            done += count
            report(done, total)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that start meanwhile have one thread each."""
    name = "NUMBA_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _played(task: _Task, progress: Callable[[int], None] | None = None) -> Played:
    plan = task.plan
    routed = policy(task.policy, plan.fleet, task.seed)
    started_s = time.perf_counter()
    run = replay(plan.fleet, task.demand, routed, plan.settings, progress)
    wall_s = time.perf_counter() - started_s
    return Played(
        policy=task.policy,
        seed=task.seed,
        run=run if task.keep else _light(run),
        times=times_of(run) if task.keep else None,
        figures=request_figures(run, plan, task.slo_class),
        end_s=run.end_s,
        wall_s=wall_s,
    )


def _light(run: Replay) -> Replay:
    """Without what is as large as the trace: enough to idle machines to a horizon."""
    world = run.world
    none = {name: getattr(world, name)[:0].copy() for name in LARGE}
    empty = np.empty(0)
    return replace(
        run,
        demand=Demand(arrival_s=empty, input_tokens=empty, output_tokens=empty),
        world=world._replace(**none),
    )


def _closed(plan: Plan, played: Played, horizon_s: float) -> Played:
    played.run.close(horizon_s)
    return replace(played, figures=energy_figures(played.run, plan, played.figures, horizon_s))


def is_compiled() -> bool:
    """Whether the simulator need not be compiled first, which takes some half a minute."""
    return all(is_kept(name) for name in KERNELS)


def compile_kernels() -> None:
    """Compile what there is to compile, on a trace of two requests."""
    step = StepModel(memory=affine(base=1.0))
    machine = Machine(
        name="one", step=step, max_batch=1, max_step_tokens=2, kv_capacity_tokens=9, idle_watts=0.0
    )
    fleet = Fleet(pools=(Pool(machine=machine, count=1, site="site"),))
    ones = np.ones(2, dtype=np.int32)
    demand = Demand(arrival_s=np.zeros(2), input_tokens=ones, output_tokens=ones)
    kinds: tuple[type[BuiltIn], ...] = (RoundRobin, LeastOutstanding)
    for kind in kinds:
        replay(fleet, demand, kind(NoOptions(), fleet, 0)).close(9.0)


def same_traces(outcome: Outcome) -> bool:
    """Whether all seeds replay the very same requests."""
    return all(
        np.array_equal(a.arrival_s, b.arrival_s)
        and np.array_equal(a.input_tokens, b.input_tokens)
        and np.array_equal(a.output_tokens, b.output_tokens)
        for a, b in pairwise(outcome.traces)
    )
