"""Prefixes that a machine keeps: by hand, and what must hold of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queues import built_in, demand_of, fleet_of, machine, served

from wattbench.core.errors import UsageError
from wattbench.routing.fleet import Fleet
from wattbench.routing.policies import PrefixAffinity, PrefixOptions
from wattbench.routing.replay import RouterSettings, replay
from wattbench.routing.step import affine
from wattbench.routing.world import Demand

pytestmark = pytest.mark.kernels
KIND = machine(
    affine(base=5e-3, per_prompt_token=1e-3, per_attended_token=1e-6),
    max_batch=4,
    energy=affine(base=1.0, per_prompt_token=0.1),
)


def keeping(tokens: int, count: int = 1) -> Fleet:
    return fleet_of(dataclasses.replace(KIND, prefix_cache_tokens=tokens), count)


def asked(prompts: Sequence[tuple[int, Sequence[int]]], block_tokens: int = 10) -> Demand:
    """Prompts of so many tokens and these blocks, a second apart, with answers of two tokens."""
    count = len(prompts)
    return dataclasses.replace(
        demand_of(
            np.arange(count, dtype=float),
            np.full(count, 2, dtype=np.int32),
            np.array([tokens for tokens, _ in prompts], dtype=np.int32),
        ),
        block_start=np.cumsum([0, *(len(blocks) for _, blocks in prompts)]),
        blocks=np.array([b for _, blocks in prompts for b in blocks], dtype=np.int32),
        block_tokens=block_tokens,
    )


@pytest.mark.parametrize(
    ("kept_tokens", "prompts", "hits"),
    [
        (100, [(30, (0, 1, 2)), (35, (0, 1, 2))], [0, 30]),
        (100, [(30, (0, 1, 2)), (30, (0, 1, 2))], [0, 20]),  # its last block is computed
        (100, [(25, (0, 1, 2)), (25, (0, 1, 2))], [0, 20]),  # the last block holds 5 tokens
        (100, [(5, (0,)), (5, (0,))], [0, 0]),  # one token at least
        (100, [(40, (0, 1, 2)), (40, (0, 9, 2)), (40, (3, 1, 2))], [0, 10, 0]),
        (30, [(40, (0, 1, 2)), (40, (5,)), (40, (0, 1, 2))], [0, 0, 0]),  # 5 drives out 0
        (30, [(40, (0, 1)), (40, (5,)), (40, (0, 1)), (40, (6,)), (40, (5,))], [0, 0, 20, 0, 0]),
        (19, [(40, (0,)), (40, (1,)), (40, (0,)), (40, (0,))], [0, 0, 0, 10]),  # one block
        (9, [(40, (0,)), (40, (0,))], None),  # not one
    ],
)
def test_hits_by_hand(
    kept_tokens: int, prompts: list[tuple[int, tuple[int, ...]]], hits: list[int] | None
) -> None:
    """Leading blocks only; the least recently used one goes."""
    found = served(keeping(kept_tokens), asked(prompts)).hit_tokens
    assert (None if found is None else found.tolist()) == hits


def test_a_hit_saves_its_tokens_and_no_more() -> None:
    """The rest still attends to what was kept, and energy is that of the rest."""
    demand = asked([(30, (0, 1)), (30, (0, 1))])
    run = served(keeping(100), demand)
    first, second = run.world.requests["first_s"] - demand.arrival_s
    assert first == pytest.approx(5e-3 + 30e-3 + 465e-6, abs=1e-12)
    assert second == pytest.approx(5e-3 + 10e-3 + (10 * 20 + 55) * 1e-6, abs=1e-12)
    assert run.energy_joules()["prefill"] == pytest.approx(0.1 * 40)


prompts_of_few_blocks = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, 6), st.integers(0, 2)), min_size=2, max_size=25
).map(lambda drawn: [(n, [b if b < 2 else b + 10 * t for b in range(c)]) for n, c, t in drawn])


@settings(max_examples=60)
@given(prompts_of_few_blocks, st.integers(0, 120))
def test_alone_no_hit_makes_the_first_token_later(
    prompts: list[tuple[int, list[int]]], kept_tokens: int
) -> None:
    """One machine, one request at a time."""
    demand = asked(prompts)
    without, kept = (served(keeping(tokens), demand).world.requests for tokens in (0, kept_tokens))
    assert (kept["first_s"] <= without["first_s"]).all()


@settings(max_examples=30)
@given(prompts_of_few_blocks)
def test_without_room_blocks_change_nothing(prompts: list[tuple[int, list[int]]]) -> None:
    """No cache, or none for one block, or no blocks told: bit for bit the same."""
    demand = asked(prompts)
    bare = dataclasses.replace(demand, block_start=None, blocks=None, block_tokens=None)
    runs = [
        served(keeping(tokens), each) for tokens, each in ((0, demand), (9, demand), (100, bare))
    ]
    assert len({run.world.requests.tobytes() for run in runs}) == 1
    assert len({run.world.machines.tobytes() for run in runs}) == 1


def test_affinity_follows_the_prefix_until_the_machine_is_too_busy() -> None:
    """Two texts stay apart; a rush on one of them spills over."""
    demand = asked([(20, (0,)), (20, (5,)), (20, (0,)), (20, (5,)), (20, (0,))])
    rush = dataclasses.replace(demand, arrival_s=np.array([0.0, 0.001, 5.0, 5.0, 5.0]))
    fleet = keeping(100, 2)
    run = served(fleet, rush, "PrefixAffinity")
    assert run.world.requests["machine"].tolist() == [0, 1, 0, 1, 0]
    policy = PrefixAffinity(PrefixOptions(spread=0), fleet, 1)
    run = replay(fleet, asked([(20, (0,))] * 3), policy)
    assert run.world.requests["machine"].tolist() == [0, 0, 0]
    crowd = dataclasses.replace(asked([(20, (0,))] * 3), arrival_s=np.array([0.0, 5.0, 5.0]))
    assert replay(fleet, crowd, policy).world.requests["machine"].tolist() == [0, 0, 1]


@pytest.mark.parametrize("signals_every_s", [None, 0.05])
def test_affinity_without_prefixes_is_least_outstanding(signals_every_s: float | None) -> None:
    """Nothing kept, nothing to follow."""
    rng = np.random.default_rng(3)
    demand = demand_of(
        np.cumsum(rng.exponential(0.01, 500)), rng.integers(1, 50, 500, dtype=np.int32)
    )
    fleet, router = keeping(100, 3), RouterSettings(signals_every_s=signals_every_s)
    first, second = (
        replay(fleet, demand, built_in(name, fleet), router).world.requests["machine"].tolist()
        for name in ("LeastOutstanding", "PrefixAffinity")
    )
    assert first == second


def test_what_cannot_be_is_refused() -> None:
    """With the value and what is due."""
    with pytest.raises(UsageError, match="prefix_cache_tokens is -1"):
        keeping(-1)
    with pytest.raises(UsageError, match="spread=-1 must be 0 or more"):
        PrefixOptions(spread=-1)
