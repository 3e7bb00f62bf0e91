"""Service levels: the grammar, goodput, and whether a point meets them."""

from __future__ import annotations

import numpy as np
import pytest
import sqlalchemy as sa
from scripted import Play, scripted_run
from test_runner import judged, short

from wattbench.core.errors import UsageError
from wattbench.core.slo import Objective, parse_slo, stored_objectives

MIXED = "ttft:p50<100ms,e2e:p95<1s"


def test_the_grammar() -> None:
    found = parse_slo("ttft:p95<500ms, tpot<0.05s,e2e:p99<=2e1s")
    assert found == (
        Objective(latency="ttft_s", label="p95", limit_s=0.5),
        Objective(latency="tpot_s", label="p95", limit_s=0.05),
        Objective(latency="e2e_s", label="p99", limit_s=20.0),
    )
    assert parse_slo(",".join(map(str, found))) == found


def test_limits_of_a_workload_file_are_objectives_at_p95() -> None:
    (found,) = stored_objectives({"ttft_s": 0.5, "tpot_s": None})
    assert str(found) == "ttft:p95<500ms"
    assert stored_objectives(None) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no objective"),
        ("ttft", "write NAME:pNN<LIMIT"),
        ("ttft:p95<500", "write NAME:pNN<LIMIT"),
        ("tfft<1s", "did you mean 'ttft'?"),
        ("ttft:p90<1s", "not one of p50, p95, p99"),
        ("ttft<0s", "above 0"),
        ("ttft<1.2.3s", "is no number"),
        ("ttft<1s,ttft:p95<2s", "twice"),
    ],
)
def test_what_is_no_objective(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_slo(text)


def test_goodput_counts_requests_that_met_every_limit(engine: sa.Engine) -> None:
    """Every fourth request stalls for half a second: three quarters of the rate are good."""
    workload = short(slo=MIXED)
    raw, _ = scripted_run(
        engine, workload, lambda n, _: Play(stall_s=0.5 if n % 4 == 0 else 0.0), concurrency=1
    )
    _, shown, _ = judged(raw)
    measured = [r for r in raw.requests if r.phase == "measured"]
    good = np.mean([r.chunk_s[0] - r.queued_s < 0.1 for r in measured])
    found = shown["metrics"]["goodput_requests_per_s"]["value"]
    all_requests = len(measured) / shown["window"]["duration_s"]
    assert found == pytest.approx(good * all_requests, rel=0.1)
    met = {one["objective"]: one["met"] for one in shown["slo"]}
    assert met["ttft:p50<100ms"] is True
    assert shown["metrics"]["energy_per_good_request_joules"]["reason"] == "no_meter"


def test_a_missed_level_is_said_and_no_level_is_none(engine: sa.Engine) -> None:
    raw, _ = scripted_run(engine, short(slo="ttft:p50<1ms"), lambda *_: Play())
    _, shown, codes = judged(raw)
    assert "slo_missed" in codes
    assert shown["metrics"]["goodput_requests_per_s"]["reason"] == "nothing_good"


def test_without_a_level_goodput_is_unknown(engine: sa.Engine) -> None:
    raw, _ = scripted_run(engine, short(slo={}), lambda *_: Play())
    _, shown, codes = judged(raw)
    assert "slo_missed" not in codes
    assert shown["slo"] == []
    assert shown["metrics"]["goodput_requests_per_s"]["reason"] == "no_slo"
