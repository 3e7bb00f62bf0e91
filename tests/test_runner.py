"""The runner when engines misbehave and loads are odd: it ends, and the verdict says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import sqlalchemy as sa
from emulation import varied_workload
from scripted import Play, scripted_run

from wattbench.core.errors import BackendError, StoreError
from wattbench.core.run import RawRun
from wattbench.results import PointResult, document, evaluate

SCHEMA = json.loads((Path(__file__).parent.parent / "wattbench" / "result.schema.json").read_text())
FIXED = {"input_tokens": 5, "output_tokens": 10}


def judged(raw: RawRun) -> tuple[PointResult, dict[str, Any], set[str]]:
    """The result, its JSON (which must keep the schema) and the codes of its findings."""
    points = evaluate([raw])
    shown = json.loads(json.dumps(document(points, "db"), allow_nan=False))
    jsonschema.validate(shown, SCHEMA)
    return points[0], shown["points"][0], {finding.code for finding in points[0].findings}


def short(**changes: object) -> Any:
    base: dict[str, object] = {"session": FIXED, "idle_s": 0.0, "measure": {"duration_s": 5.0}}
    return varied_workload(**base | changes)


def test_without_a_meter_there_is_speed_and_a_reason(engine: sa.Engine) -> None:
    """Latency and throughput stand, energy is unknown because there is no meter."""
    raw, _ = scripted_run(engine, short(), lambda *_: Play())
    point, shown, codes = judged(raw)
    assert (point.performance, point.energy) == ("valid", "invalid")
    assert "no_meter" in codes
    assert shown["energy"]["headline"]["gross_joules"] == {"value": None, "reason": "no_meter"}
    assert shown["metrics"]["output_tokens_per_s"]["value"] > 0


def test_dead_server_ends_a_run_counted_in_requests(engine: sa.Engine) -> None:
    """After eight answers everything fails: failures count, so the run ends."""
    workload = short(measure={"requests": 60})
    raw, elapsed_s = scripted_run(engine, workload, lambda number, _: Play(fails=number > 8))
    assert elapsed_s < 60
    _, shown, codes = judged(raw)
    assert "requests_failed" in codes
    assert shown["verdict"]["performance"] == "invalid"


def test_server_dead_from_the_start_fails_the_run(engine: sa.Engine) -> None:
    """Five failures and no answer are enough."""
    with pytest.raises(BackendError, match="none succeeded") as error:
        scripted_run(engine, short(), lambda *_: Play(fails=True))
    # A server that repeats the key that it was sent does not get it into the store.
    assert "api_key=left-out" in str(error.value)


def test_thinking_users_do_not_hold_up_the_end(engine: sa.Engine) -> None:
    """A pause of 40 s is cut short when the window is over."""
    session = {**FIXED, "turns": 2, "think_time_s": 40.0}
    _, elapsed_s = scripted_run(engine, short(session=session), lambda *_: Play())
    assert elapsed_s < 8


def test_rare_arrivals_do_not_hold_up_the_end(engine: sa.Engine) -> None:
    """The next arrival in 20 s is not waited for."""
    arrivals = {"kind": "constant", "rate_per_s": [0.5]}
    workload = short(arrivals=arrivals, warmup={"requests_per_user": 0})
    _, elapsed_s = scripted_run(
        engine, workload, lambda *_: Play(), rate_per_s=0.05, concurrency=None
    )
    assert elapsed_s < 8


def test_overload_is_said_and_its_backlog_is_not_served(engine: sa.Engine) -> None:
    """Ten times more arrivals than one slot can take: the queue is dropped and named."""
    arrivals = {"kind": "poisson", "rate_per_s": [100], "max_concurrency": 1}
    raw, elapsed_s = scripted_run(
        engine, short(arrivals=arrivals), lambda *_: Play(), concurrency=1, rate_per_s=100.0
    )
    assert elapsed_s < 10
    point, _, codes = judged(raw)
    assert "overloaded" in codes
    assert point.performance == "invalid"
    end_s = raw.event_time_s("measure_end")
    assert end_s is not None
    assert all(request.sent_s <= end_s for request in raw.requests)


def test_a_stalled_half_is_not_steady(engine: sa.Engine) -> None:
    """Nothing at all in the second half of a window is the worst drift there is."""
    raw, _ = scripted_run(engine, short(), lambda _, now_s: Play(stall_s=9.0 * (now_s > 2.5)))
    point, _, codes = judged(raw)
    assert "not_steady" in codes
    assert point.performance != "valid"


def test_a_stall_in_the_midst_of_answers_is_not_steady(engine: sa.Engine) -> None:
    """A second of silence late in the window, as in an engine that swaps, is named as a stall."""
    window = short(measure={"duration_s": 10.0})
    raw, _ = scripted_run(
        engine, window, lambda _, now_s: Play(pause_s=1.5 * (9.0 < now_s < 9.2)), concurrency=1
    )
    point, _, codes = judged(raw)
    assert "not_steady" in codes
    assert any("in the midst of an answer" in finding.message for finding in point.findings)


def test_few_unlike_answers_are_steady(engine: sa.Engine) -> None:
    """One user whose answers are of very unlike lengths: the halves differ, and by chance."""
    window = short(measure={"duration_s": 40.0})
    lengths = {number: 400 if number % 7 == 4 else 20 for number in range(1, 400)}

    def script(number: int, _: float) -> Play:
        return Play(tokens=lengths[number], claimed_tokens=lengths[number], stall_s=1.0)

    raw, _ = scripted_run(engine, window, script, concurrency=1)
    point, _, codes = judged(raw)
    tokens = [part.output_tokens for part in point.facts.runs[0].parts]
    assert not 1 / 1.2 < sum(tokens[:5]) / sum(tokens[5:]) < 1.2
    assert "not_steady" not in codes


def test_a_slower_second_half_is_not_steady(engine: sa.Engine) -> None:
    """Answers that take half as long again from the middle of the window on."""
    window = short(measure={"duration_s": 20.0})
    raw, _ = scripted_run(engine, window, lambda _, now_s: Play(stall_s=0.05 * (now_s > 10.0)))
    _, _, codes = judged(raw)
    assert "not_steady" in codes


def test_prompts_that_repeat_answers_are_not_too_long(engine: sa.Engine) -> None:
    """What a second turn adds was not asked for in tokens; a first turn of another length was."""
    workload = short(session={**FIXED, "turns": 2})
    raw, _ = scripted_run(
        engine, workload, lambda number, _: Play(input_tokens=(20, 5)[number % 2]), concurrency=1
    )
    assert "input_length_mismatch" not in judged(raw)[2]


def test_first_prompts_of_another_length_are_named(engine: sa.Engine) -> None:
    """Twenty tokens by the engine's count where five were asked for."""
    raw, _ = scripted_run(engine, short(), lambda *_: Play(input_tokens=20))
    assert "input_length_mismatch" in judged(raw)[2]


@pytest.mark.parametrize("claimed", [-5, 0, 10**30, None])
def test_impossible_token_counts_are_unknown(engine: sa.Engine, claimed: int | None) -> None:
    """A count below 1 for an answer with text, or beyond reason, is no count."""
    raw, _ = scripted_run(engine, short(), lambda *_: Play(claimed_tokens=claimed))
    point, shown, codes = judged(raw)
    assert all(request.output_tokens is None for request in raw.requests)
    assert "token_count_missing" in codes
    assert point.performance == "invalid"
    assert shown["metrics"]["output_tokens_per_s"]["value"] > 0


def test_value_that_no_column_takes_ends_the_run(engine: sa.Engine) -> None:
    """A tag that is no text in any encoding: one clear error, no waiting for ever."""
    with pytest.raises(StoreError, match="cannot be written"):
        scripted_run(engine, short(), lambda *_: Play(), tag="\udcff")
