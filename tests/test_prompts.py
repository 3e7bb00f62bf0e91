"""Prompts of the user's own: read whole, sent as they are, refused with line or entry."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from emulation import emulated_run
from hypothesis import given
from hypothesis import strategies as st

from wattbench.core.errors import DocumentError, UsageError
from wattbench.core.load import Message
from wattbench.workload import Workload, load_workload, sessions, with_value
from wattbench.workload.prompts import read_prompts

LINES = """{"prompt": "Why is the sky blue?", "output_tokens": 7, "id": 3}

{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüezi 😀"}]}
"""
SHAREGPT = [
    {"id": "a", "conversations": []},
    {
        "id": "b",
        "conversations": [
            {"from": "gpt", "value": "I begin."},
            {"from": "system", "value": "Be brief."},
            {"from": "human", "value": "One?"},
            {"from": "gpt", "value": "1"},
            {"from": "human", "value": "  "},
            {"from": "user", "value": "Two?"},
        ],
    },
]


def loaded(
    folder: Path, content: str, session: str = "output_tokens: 5", ending: str = ""
) -> Workload:
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / "p.json").write_text(content, encoding="utf-8")
    path = folder / "workload.yaml"
    path.write_text(
        f"name: t\nabout: A test.\nsession: {{prompts: mine/p.json, {session}}}\n"
        "arrivals: {kind: closed}\nmeasure: {requests: 8}\n" + ending
    )
    return load_workload(str(path))


def user(text: str) -> Message:
    return Message(role="user", text=text)


def test_json_lines_are_sent_as_they_are(tmp_path: Path) -> None:
    """Both shapes of a line; the file's limit comes before the workload's; every entry in turn."""
    workload = loaded(tmp_path, LINES)
    drawn = list(itertools.islice(sessions(workload, 3), 20))
    requests = [session.request(0, 0, (), ignore_eos=False) for session in drawn]
    found = {(request.messages, request.max_output_tokens) for request in requests}
    brief = Message(role="system", text="Be brief.")
    assert found == {((user("Why is the sky blue?"),), 7), ((brief, user("Grüezi 😀")), 5)}
    for first, second in itertools.pairwise(requests):
        assert first.messages != second.messages, "all entries before one comes again"
    orders = {
        tuple(s.turns[0].output_tokens for s in itertools.islice(sessions(workload, seed), 2))
        for seed in range(20)
    }
    assert orders == {(5, 7), (7, 5)}


def test_sharegpt_questions_are_turns(tmp_path: Path) -> None:
    """Answers, blank messages and conversations without a question are left out."""
    workload = loaded(tmp_path, json.dumps(SHAREGPT))
    session = next(sessions(workload, 1))
    assert [turn.messages for turn in session.turns] == [
        (Message(role="system", text="Be brief."), user("One?")),
        (user("Two?"),),
    ]


def test_every_turn_reaches_the_engine(engine: sa.Engine, tmp_path: Path) -> None:
    """A run of a ShareGPT file: the emulated machine takes a token for four bytes."""
    workload = loaded(tmp_path, json.dumps(SHAREGPT), ending="warmup: {requests_per_user: 2}\n")
    raw, _ = emulated_run(engine, workload, concurrency=1, seed=1)
    assert raw.status == "completed"
    counts = [request.input_tokens for request in raw.requests if request.phase == "measured"]
    first = 2 + 1  # nine bytes and four
    assert set(counts) == {first, first + 5 + 1}


WRONG = [
    ("{", "mine/p.json line 1: is no JSON"),
    (LINES + '{"text": "x"}', "mine/p.json line 4: must be an object with either prompt or"),
    ('{"prompt": "a", "messages": []}', "line 1: must be an object with either prompt or messages"),
    ('{"prompt": " "}', "line 1: messages.0.content must be a text, and not a blank one"),
    ('{"prompt": 5}', "must be a text"),
    ('{"prompt": "\\ud800"}', "half of a surrogate pair"),
    ('{"prompt": "a", "output_tokens": 0}', "line 1: output_tokens = 0 is no whole number from 1"),
    ('{"prompt": "a", "output_tokens": true}', "output_tokens = True is no whole number"),
    ('{"messages": []}', "line 1: messages must be a list"),
    ('{"messages": [{"role": "tool", "content": "a"}]}', "messages.0.role must be one of system"),
    (
        '{"messages": [{"role": "assistant", "content": "a"}]}',
        "last message must be the user's",
    ),
    ("", "mine/p.json: there is no prompt in it"),
    ("[]", "mine/p.json: there is no prompt in it"),
    ('[{"conversations": []}]', "there is no prompt in it"),
    ("[1]", "mine/p.json entry 0: must be an object with a list of conversations"),
    ('[{"conversations": [{"from": "me"}]}]', "entry 0: conversations.0.from must be one of human"),
    ('[{"conversations": [{"from": "human"}]}]', "conversations.0.value must be a text"),
]


NOISE = st.text() | st.text('{}[],:"promtesagcvin \\n', max_size=200)


@given(text=NOISE)
def test_noise_is_prompts_or_a_value_error(text: str) -> None:
    """Nothing but ValueError, which a workload's reader turns into file, line and key."""
    for whole in (text, LINES + text, "[" + text):
        with suppress(ValueError):
            assert read_prompts(whole, "file")


@pytest.mark.parametrize(("content", "message"), WRONG)
def test_broken_prompts_are_refused_with_their_place(
    tmp_path: Path, content: str, message: str
) -> None:
    """File, line and key of the workload, then file and line or entry of the prompts."""
    with pytest.raises(DocumentError) as caught:
        loaded(tmp_path, content)
    assert "workload.yaml:3: session.prompts = " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("session", "message"),
    [
        ("output_tokens: 5, input_tokens: 5", "drop input_tokens"),
        ("output_tokens: 5, turns: 2", "drop turns"),
        ("output_tokens: 5, shared_prefix_tokens: 9", "drop shared_prefix_tokens"),
        ("think_time_s: 1", "needs output_tokens, the longest answer: 1 of 2 prompts do not say"),
    ],
)
def test_session_and_prompts_may_not_say_the_same(
    tmp_path: Path, session: str, message: str
) -> None:
    """What the file says is not said again, and what it leaves open must be."""
    with pytest.raises(DocumentError, match=message):
        loaded(tmp_path, LINES, session)


def test_paths_are_the_workloads(tmp_path: Path) -> None:
    """A file is found beside its workload and known by its digest; a swept one is, too."""
    workload = loaded(tmp_path, LINES)
    (tmp_path / "other.jsonl").write_text('{"prompt": "Other?"}')
    stored = workload.model_dump(mode="json")["session"]["prompts"]
    assert stored["file"] == "mine/p.json"
    assert len(stored["sha256"]) == 64
    for key in ("session.prompts", "session.prompts.file"):
        other = with_value(workload, key, "other.jsonl")
        assert next(sessions(other, 1)).turns[0].messages == (user("Other?"),)
        assert other.model_dump()["session"]["prompts"]["sha256"] != stored["sha256"]
    with pytest.raises(UsageError, match=r"session.prompts=none.jsonl: .*cannot be read"):
        with_value(workload, "session.prompts", "none.jsonl")
    path = tmp_path / "workload.yaml"
    pinned = f"{{file: mine/p.json, sha256: {'a' * 64}}}"
    path.write_text(path.read_text().replace("mine/p.json", pinned))
    with pytest.raises(DocumentError, match=r"workload.yaml:3: .*is another file"):
        load_workload(str(path))


def test_schedule_and_prompts_from_the_command_line(tmp_path: Path) -> None:
    """One operating point under the mean rate, and a sweep of the time scale."""
    (tmp_path / "times.csv").write_text("time_s\n0\n1\n2\n3.1\n")
    (tmp_path / "p.jsonl").write_text(LINES)
    path = tmp_path / "workload.yaml"
    path.write_text(
        "name: t\nabout: A test.\nsession: {prompts: p.jsonl, output_tokens: 5}\n"
        "arrivals: {kind: trace, file: times.csv, format: csv}\n"
        "warmup: {requests_per_user: 1}\nmeasure: {duration_s: 60}\n"
    )
    command = (
        *(
            sys.executable,
            "-m",
            "wattbench",
            "run",
            str(path),
            "--backend",
            "emulated",
            "--hardware",
            "h100-sxm",
            "--json",
        ),
        *("--db", str(tmp_path / "x.db"), "--sweep", "workload.arrivals.time_scale=1,2"),
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    points = [point["operating_point"] for point in json.loads(done.stdout)["points"]]
    assert [point["rate_per_s"] for point in points] == [0.967742, 0.483871]
