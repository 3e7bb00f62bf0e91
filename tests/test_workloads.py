"""Shipped workloads run; their sessions and prompts are what the page says."""

from __future__ import annotations

import itertools

import pytest
import sqlalchemy as sa
from emulation import emulated_run

from wattbench.core.load import InferenceRequest
from wattbench.workload import (
    ClosedLoop,
    Workload,
    load_workload,
    sessions,
    with_value,
    workload_names,
)


def synthetic(**session: object) -> Workload:
    lengths = {"input_tokens": 30, "output_tokens": 5}
    changes = {"session": lengths | session, "arrivals": {"kind": "closed"}}
    return Workload.model_validate(load_workload("quickstart").model_dump() | changes)


def first_requests(workload: Workload, seed: int, count: int) -> list[InferenceRequest]:
    drawn = itertools.islice(sessions(workload, seed), count)
    return [session.request(0, 0, (), ignore_eos=True) for session in drawn]


@pytest.mark.parametrize("name", workload_names())
def test_shipped_workload_runs(engine: sa.Engine, name: str) -> None:
    """Every shipped workload runs on the emulated H100, here with a short measurement."""
    workload = load_workload(name)
    for key, value in (
        ("warmup", "{duration_s: 0.5, requests_per_user: 0}"),
        ("measure", "{requests: 2}"),
    ):
        workload = with_value(workload, key, value)
    closed = isinstance(workload.arrivals, ClosedLoop)
    raw, _ = emulated_run(
        engine, workload, concurrency=2, rate_per_s=None if closed else 2.0, seed=3
    )
    assert raw.status == "completed"
    measured = [request for request in raw.requests if request.phase == "measured"]
    assert len(measured) >= 2
    assert all(request.succeeded for request in raw.requests)


def test_shipped_workloads_are_known_and_described() -> None:
    """None is missing, and each comes with a service level, an idle phase and a warm-up."""
    expected = "1k1k 1k8k 8k1k agent chat chat-open code long-context quickstart rag reasoning"
    assert workload_names() == sorted(expected.split())
    for name in workload_names():
        workload = load_workload(name)
        assert workload.about.endswith(".")
        assert workload.idle_s >= 1
        assert workload.warmup.duration_s >= 1
        assert workload.slo.ttft_s is not None  # type: ignore[union-attr]


def test_shared_prefix_is_one_text_per_run() -> None:
    """All sessions of a run begin with the same system message, those of another run do not."""
    workload = synthetic(turns=2, shared_prefix_tokens=100)
    requests = first_requests(workload, 7, 20)
    prefixes = {request.messages[0] for request in requests}
    (prefix,) = prefixes
    assert (prefix.role, prefix.tokens, prefix.text) == ("system", 100, None)
    assert requests[0].synthetic_input_tokens == 130
    assert first_requests(workload, 8, 1)[0].messages[0].seed != prefix.seed
    session = next(sessions(workload, 7))
    second = session.request(1, 1, requests[0].messages, ignore_eos=True)
    assert [message.role for message in second.messages] == ["system", "user", "user"]
    plain = synthetic(turns=2)
    assert [r.messages[-1] for r in first_requests(plain, 7, 20)] == [
        r.messages[-1] for r in requests
    ]


def test_no_prompt_is_sent_twice() -> None:
    """Prompts of different sessions differ, so a warm-up cannot prime what is measured."""
    requests = first_requests(synthetic(), 7, 500)
    seeds = [request.messages[0].seed for request in requests]
    assert len(set(seeds)) == 500
