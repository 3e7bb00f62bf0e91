"""Arrivals by the clock: rates and scatter are those asked for, and schedules run as written."""

from __future__ import annotations

import itertools
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from emulation import emulated_run
from hypothesis import given
from hypothesis import strategies as st

from wattbench.core.energy import FloatArray
from wattbench.core.errors import DocumentError
from wattbench.core.run import RawRun
from wattbench.workload import (
    GammaLoop,
    Schedule,
    Workload,
    arrival_times_s,
    load_workload,
    schedule_times_s,
    scheduled_sessions,
    sessions,
)
from wattbench.workload.traces import TraceFormat, read_trace

RAMP = "{kind: ramp, from_rate_per_s: 2, to_rate_per_s: 30}"
STAGES = (
    "{kind: stages, stages: [{rate_per_s: 5, duration_s: 4}, {rate_per_s: 40, duration_s: 2}, "
    "{rate_per_s: 1, duration_s: 6}]}"
)
AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.5000000,374,44
2023-11-16 18:15:50.7500000,396,109
2023-11-16 18:15:47.0000000,879,0
"""
MOONCAKE = """{"timestamp": 500, "input_length": 374, "output_length": 44, "hash_ids": [1, 2]}
{"timestamp": 1000, "input_length": 879, "output_length": 1, "hash_ids": [1, 3]}

{"timestamp": 4750, "input_length": 396, "output_length": 109, "hash_ids": []}
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5.5,ChatGPT,374,44,418,Conversation log
6,GPT-4,879,0,879,API log
9.75,ChatGPT,396,109,505,Conversation log
"""
PLAIN = "time_s, input_tokens, output_tokens, who\r\n0,374,44,a\r\n0.5,879,1,b\r\n4.25,396,109,c"
FORMATS = {"azure": AZURE, "mooncake": MOONCAKE, "burstgpt": BURSTGPT, "csv": PLAIN}


def loaded(folder: Path, arrivals: str, session: str = "{}", measure: str = "") -> Workload:
    path = folder / "workload.yaml"
    path.write_text(
        f"name: t\nabout: A test.\nsession: {session}\narrivals: {arrivals}\n"
        f"measure: {measure or '{duration_s: 100}'}\nwarmup: {{requests_per_user: 3}}\n"
    )
    return load_workload(str(path))


def traced(folder: Path, form: str, text: str, scale: float = 1, session: str = "{}") -> Workload:
    (folder / "trace").write_text(text, newline="")
    arrivals = f"{{kind: trace, file: trace, format: {form}, time_scale: {scale}}}"
    return loaded(folder, arrivals, session)


def scheduled(workload: Workload, seed: int = 1, measure_s: float | None = None) -> FloatArray:
    assert isinstance(workload.arrivals, Schedule)
    measure_s = measure_s or workload.measure.duration_s
    return np.array(list(schedule_times_s(workload.arrivals, measure_s, seed)))


@given(k=st.floats(0.2, 50), rate=st.floats(0.01, 1000), seed=st.integers(0, 2**32))
def test_gamma_gaps_have_their_mean_and_scatter(k: float, rate: float, seed: int) -> None:
    """Mean rate as asked, and a coefficient of variation of 1/√k, within six standard errors."""
    loop = GammaLoop(kind="gamma", rate_per_s=(rate,), burstiness=k)
    count = 4000
    times_s = list(itertools.islice(arrival_times_s(loop, rate, seed), count))
    assert times_s == list(itertools.islice(arrival_times_s(loop, rate, seed), count))
    gaps = np.diff([0.0, *times_s]) * rate
    assert gaps.mean() == pytest.approx(1, abs=6 / np.sqrt(k * count))
    # Variance of a gamma sample's variance: kurtosis is 3 + 6/k.
    error = np.sqrt((2 + 6 / k) / count) / k
    assert gaps.var() == pytest.approx(1 / k, abs=7 * error)


@given(seed=st.integers(0, 2**32), low=st.floats(0.1, 50), high=st.floats(0.1, 50))
def test_a_ramp_adds_up_to_the_integral_of_its_rate(seed: int, low: float, high: float) -> None:
    """Cumulative counts follow the area under the rate; both directions, and a level one."""
    ramp = Workload.model_validate(
        load_workload("quickstart").model_dump()
        | {"arrivals": {"kind": "ramp", "from_rate_per_s": low, "to_rate_per_s": high}}
    )
    times_s = scheduled(ramp, seed, 200.0)
    assert np.all(np.diff(times_s) >= 0)
    assert times_s.size == 0 or 0 <= times_s[0] <= times_s[-1] <= 200
    for at_s in (50.0, 120.0, 200.0):
        expected = low * at_s + (high - low) * at_s**2 / 400
        assert np.sum(times_s <= at_s) == pytest.approx(expected, abs=6 * np.sqrt(expected) + 6)


def test_stages_have_their_rates(tmp_path: Path) -> None:
    """Over many seeds each stage has the count that it should."""
    workload = loaded(tmp_path, STAGES, "{input_tokens: 5, output_tokens: 5}")
    drawn = [scheduled(workload, seed) for seed in range(200)]
    assert all(np.all(np.diff(times_s) > 0) for times_s in drawn)
    counts = np.array([np.histogram(times_s, [0, 4, 6, 12])[0] for times_s in drawn])
    assert counts.sum(axis=1).tolist() == [len(times_s) for times_s in drawn]
    expected = np.array([20, 80, 6])
    assert counts.mean(axis=0) == pytest.approx(expected, abs=6 * np.sqrt(80 / 200))
    assert isinstance(workload.arrivals, Schedule)
    assert workload.arrivals.mean_rate_per_s == pytest.approx(106 / 12)
    assert (scheduled(workload, 3) == scheduled(workload, 3)).all()
    assert len(scheduled(workload, 3)) != len(scheduled(workload, 4))


@pytest.mark.parametrize("form", FORMATS)
def test_traces_keep_times_and_lengths(tmp_path: Path, form: str) -> None:
    """Four formats of the same traffic: same instants, scaled exactly, same lengths, any order."""
    for scale in (1.0, 0.25, 3.0):
        workload = traced(tmp_path, form, FORMATS[form], scale)
        assert scheduled(workload).tolist() == [0.0, 0.5 * scale, 4.25 * scale]
        assert isinstance(workload.arrivals, Schedule)
        assert workload.arrivals.mean_rate_per_s == pytest.approx(2 / 4.25 / scale)
        assert workload.arrivals.duration_s(None) == pytest.approx(1.5 * 4.25 * scale)
    coming = list(itertools.islice(scheduled_sessions(workload, 1), 3))
    found = [(s.turns[0].messages[0].tokens, s.turns[0].output_tokens) for s in coming]
    assert found == [(374, 44), (879, 1), (396, 109)]
    before = list(itertools.islice(sessions(workload, 1), 50))
    assert {s.turns[0].output_tokens for s in before} == {44, 1, 109}
    texts = [s.turns[0].messages[0].seed for s in (*before, *coming)]
    assert len(set(texts)) == 53, "the warm-up sends nothing that the trace does"


WRONG = [
    ("azure", "a,b\n1,2\n", "trace line 1: the format azure needs a column 'TIMESTAMP'; here are"),
    ("azure", AZURE + "soon,1,2\n", "trace line 5: TIMESTAMP = 'soon' is no time"),
    ("azure", AZURE + "2023-11-16 18:15:47\n", "trace line 5: ContextTokens = 'None' is no length"),
    ("csv", "time_s,input_tokens\n0,1\n", "needs a column 'output_tokens'"),
    ("csv", "time_s\n0\ninf\n", "trace line 3: time_s = 'inf' is no time"),
    ("csv", "time_s\n3\n3\n", "needs two requests at different times"),
    ("csv", "", "here are none"),
    ("csv", "x" * 200_000, "trace line 1: field larger than field limit"),
    ("csv", "time_s\n0\n" + "1" * 200_000, "trace line 3: field larger than field limit"),
    ("csv", "time_s\n0\n1e9\n", "from 1e-06 to 1e+07 s can be replayed"),
    ("burstgpt", BURSTGPT + "9,x,-4,1,1,x\n", "trace line 5: Request tokens = '-4' is no length"),
    ("mooncake", MOONCAKE + "{\n", "trace line 5: is no JSON"),
    ("mooncake", MOONCAKE + "[1]\n", "trace line 5: must be a JSON object"),
    ("mooncake", '{"timestamp": 1, "input_length": true}', "line 1: input_length = 'True' is no"),
    ("mooncake", '{"timestamp": [], "input_length": 1}', "line 1: timestamp = '[]' is no time"),
]


@pytest.mark.parametrize(("form", "text", "message"), WRONG)
def test_broken_traces_are_refused_with_their_line(
    tmp_path: Path, form: str, text: str, message: str
) -> None:
    """File and key of the workload, then name and line of the trace, and what is wrong there."""
    with pytest.raises(DocumentError) as caught:
        traced(tmp_path, form, text)
    assert "workload.yaml:4: arrivals: " in str(caught.value)
    assert message in str(caught.value)


NOISE = st.text() | st.text('{}[],:"timestamp_inputlength 0123456789.e-\\n\\r', max_size=200)


@given(form=st.sampled_from(["azure", "mooncake", "burstgpt", "csv"]), text=NOISE)
def test_noise_is_a_trace_or_a_value_error(form: TraceFormat, text: str) -> None:
    """Nothing but ValueError, which a workload's reader turns into file, line and key."""
    for whole in (text, FORMATS[form] + text):
        with suppress(ValueError):
            assert len(read_trace(whole, form, "trace").time_s) >= 2


CONTRADICTIONS = [
    ("{input_tokens: 5, output_tokens: 5}", "azure", "drop session.input_tokens"),
    ("{turns: 2}", "azure", "drop session.turns"),
    ("{prompts: questions}", "azure", "the trace has lengths and the prompts have others"),
    ("{output_tokens: 5}", "times", "session.input_tokens is missing"),
]


@pytest.mark.parametrize(("session", "form", "message"), CONTRADICTIONS)
def test_trace_and_session_may_not_say_the_same(
    tmp_path: Path, session: str, form: str, message: str
) -> None:
    """Lengths come from one place, and from one at least."""
    (tmp_path / "questions").write_text('{"prompt": "Why?", "output_tokens": 3}')
    text = "time_s\n0\n1\n" if form == "times" else FORMATS[form]
    with pytest.raises(DocumentError, match=message):
        traced(tmp_path, "csv" if form == "times" else form, text, session=session)


def test_a_trace_of_times_takes_lengths_from_the_session(tmp_path: Path) -> None:
    """Several turns are possible then; a digest that is written must be right."""
    session = "{turns: 3, input_tokens: 7, output_tokens: 5}"
    workload = traced(tmp_path, "csv", "time_s\n0\n1\n", session=session)
    (first,) = itertools.islice(scheduled_sessions(workload, 1), 1)
    assert [turn.messages[0].tokens for turn in first.turns] == [7, 7, 7]
    digest = workload.arrivals.model_dump()["sha256"]
    arrivals = f"{{kind: trace, file: trace, format: csv, sha256: {digest}}}"
    assert loaded(tmp_path, arrivals, session).arrivals.model_dump()["sha256"] == digest
    (tmp_path / "trace").write_text("time_s\n0\n2\n")
    with pytest.raises(DocumentError, match="trace is another file: its sha256 is"):
        loaded(tmp_path, arrivals, session)


def measured_arrivals(raw: RawRun) -> tuple[float, float, FloatArray]:
    """Begin and length of the measured phase [s], and first turns in it, from its begin [s]."""
    begin_s, end_s = raw.event_time_s("measure_start"), raw.event_time_s("measure_end")
    assert begin_s is not None
    assert end_s is not None
    queued = [r.queued_s - begin_s for r in raw.requests if r.phase == "measured"]
    return begin_s, end_s - begin_s, np.sort(np.array(queued))


@pytest.mark.parametrize("kind", ["ramp", "stages", "trace", "gamma"])
def test_schedules_run_as_written(engine: sa.Engine, tmp_path: Path, kind: str) -> None:
    """On the emulated machine requests leave at the instants drawn, from the measured phase on."""
    lengths = "{input_tokens: 20, output_tokens: 4}"
    if kind == "trace":
        workload = traced(tmp_path, "azure", AZURE, 0.5)
    elif kind == "gamma":
        gamma = "{kind: gamma, rate_per_s: 20, burstiness: 0.5}"
        workload = loaded(tmp_path, gamma, lengths, "{duration_s: 5}")
    else:
        arrivals = RAMP if kind == "ramp" else STAGES
        workload = loaded(tmp_path, arrivals, lengths, "{duration_s: 15}")
    raw, _ = emulated_run(engine, workload, concurrency=None, rate_per_s=20.0, seed=5)
    assert raw.status == "completed"
    _, lasted_s, queued_s = measured_arrivals(raw)
    if kind == "gamma":
        assert lasted_s == pytest.approx(5)
        return
    assert queued_s == pytest.approx(scheduled(workload, 5), abs=1e-6)
    expected = {"ramp": 15.0, "stages": 12.0, "trace": 1.5 * 4.25 * 0.5}
    assert lasted_s == pytest.approx(expected[kind])
    assert any(request.phase == "warmup" for request in raw.requests)
    assert len({one.request.session_index for one in raw.requests}) == len(raw.requests)


def test_a_trace_must_be_there(tmp_path: Path) -> None:
    """A missing file, and a folder, are named."""
    for name, message in (("none", "none cannot be read: No such file"), (".", r"\. is no file")):
        with pytest.raises(DocumentError, match=rf"workload.yaml:4: arrivals = .*{message}"):
            loaded(tmp_path, f"{{kind: trace, file: {name}, format: csv}}")


def test_a_ramp_needs_its_time(tmp_path: Path) -> None:
    """Requests alone do not say how fast a ramp rises."""
    with pytest.raises(DocumentError, match=r"workload.yaml:5: measure = .*a ramp needs duration"):
        loaded(tmp_path, RAMP, "{input_tokens: 5, output_tokens: 5}", "{requests: 50}")
