"""Workload files: what is wrong is refused with file, line and key; what is right is documented."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from wattbench.core.errors import DocumentError
from wattbench.documents import find_document, load_document
from wattbench.hardware import load_profile, profile_names
from wattbench.workload import (
    ClosedLoop,
    OpenLoop,
    Workload,
    arrivals,
    files,
    lengths,
    load_workload,
    prompts,
    workload_names,
)
from wattbench.workload import format as workload_format
from wattbench.workload.format import SessionShape
from wattbench.workload.lengths import Lognormal

ROOT = Path(__file__).parent.parent
LINES = {
    "name": "short",
    "about": "A few short answers.",
    "session": "{input_tokens: 20, output_tokens: 12}",
    "arrivals": "{kind: closed, concurrency: [2]}",
    "measure": "{duration_s: 1.5}",
    "seed": "1",
}
"""A right workload, one key a line: line numbers are places in this table."""


def written(folder: Path, changes: dict[str, str]) -> Path:
    path = folder / "file.yaml"
    lines = {**LINES, **changes}
    path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DocumentError) as caught:
        load_workload(str(path))
    text = str(caught.value)
    assert text.startswith(str(path))
    assert len(text) < len(str(path)) + 400, "an error is one paragraph"
    return text.removeprefix(str(path))


def session(**changes: str) -> dict[str, str]:
    lengths = {"input_tokens": "20", "output_tokens": "12"} | changes
    return {"session": "{" + ", ".join(f"{key}: {value}" for key, value in lengths.items()) + "}"}


def closed(concurrency: str) -> dict[str, str]:
    return {"arrivals": f"{{kind: closed, concurrency: {concurrency}}}"}


def rates(rate: str) -> dict[str, str]:
    return {"arrivals": f"{{kind: poisson, rate_per_s: {rate}}}"}


NOT_YAML = [
    ({"seed": "9" * 5000}, "line 6", "5000"),
    ({"seed": "0x" + "f" * 5000}, "line 6", "5002"),
    ({"seed": "!!int abc"}, "line 6", "'abc'"),
    ({"seed": "!!int ''"}, "line 6", "''"),
    ({"seed": "!!float abc"}, "line 6", "'abc'"),
    ({"ignore_eos": "!!bool maybe"}, "line 7", "'maybe'"),
    ({"seed": "!!timestamp bad"}, "line 6", "'bad'"),
    ({"seed": "!!timestamp 2026-13-45"}, "line 6", "'2026-13-45'"),
    ({"? [a, b]\n": "1"}, "line 7", "key"),
    ({"? {a: b}\n": "1"}, "line 7", "key"),
    ({"1": "1"}, "line 7", "'1'"),
    ({"null": "1"}, "line 7", "'null'"),
    ({"seed": "1\nseed: 2"}, "line 7", "'seed' twice"),
]


@pytest.mark.parametrize(("changes", "line", "value"), NOT_YAML)
def test_what_yaml_cannot_mean_is_refused(
    tmp_path: Path, changes: dict[str, str], line: str, value: str
) -> None:
    """Numbers, dates and keys that Python's YAML stumbles over: line and value, no traceback."""
    text = refusal(written(tmp_path, changes))
    assert line in text
    assert value in text


IMPOSSIBLE = [
    (
        session(input_tokens="{kind: lognormal, median: 10, sigma: 1e9, high: 9}"),
        3,
        "sigma = 1000000000.0",
    ),
    (session(input_tokens="{kind: lognormal, median: 1e308, sigma: 1, high: 9}"), 3, "median = 1e"),
    (session(input_tokens="10000001"), 3, "session.input_tokens = 10000001"),
    (session(output_tokens="{kind: fixed, value: 10000001}"), 3, "output_tokens.value"),
    (session(input_tokens="{kind: uniform, low: 1, high: 10000001}"), 3, "input_tokens.high"),
    (session(input_tokens="{kind: uniform, low: 9, high: 3}"), 3, "low 9 is above high 3"),
    (session(input_tokens="{kind: uniform, low: 9}"), 3, "session.input_tokens.high: "),
    (
        session(input_tokens="{kind: lognormal, median: 1, sigma: 1, high: 10000001}"),
        3,
        "input_tokens.high",
    ),
    (session(turns="100001"), 3, "session.turns = 100001: at most 100000"),
    (session(turns="{kind: uniform, low: 1, high: 100001}"), 3, "session.turns"),
    (session(think_time_s="10000001"), 3, "session.think_time_s = 10000001"),
    (session(input_tokens="true"), 3, "a whole number, or a mapping with kind"),
    (session(input_tokens='"20"'), 3, "a whole number, or a mapping with kind"),
    (session(input_tokens="[20]"), 3, "a whole number, or a mapping with kind"),
    (session(input_tokens="{low: 2, high: 3}"), 3, "needs the key kind"),
    (session(input_tokens="{kind: fixed, value: true}"), 3, "input_tokens.value = True: must be a"),
    ({"measure": "{duration_s: 10000001}"}, 5, "measure.duration_s = 10000001"),
    ({"measure": "{duration_s: .inf}"}, 5, "measure.duration_s = inf"),
    ({"measure": "{duration_s: true}"}, 5, "measure.duration_s = True: must be a number"),
    ({"measure": "{duration_s: 5 s}"}, 5, "measure.duration_s = '5 s': must be a number"),
    ({"measure": "{requests: 1000000001}"}, 5, "measure.requests = 1000000001"),
    ({"measure": "[1]"}, 5, "measure = [1]: must be a mapping"),
    ({"warmup": "{duration_s: 10000001}"}, 7, "warmup.duration_s = 10000001"),
    ({"idle_s": "10000001"}, 7, "idle_s = 10000001"),
    ({"request_timeout_s": "10000001"}, 7, "request_timeout_s = 10000001"),
    ({"slo": "{ttft_s: 10000001}"}, 7, "slo.ttft_s = 10000001"),
    ({"seed": "9223372036854775808"}, 6, "seed = 9223372036854775808"),
    ({"seed": "true"}, 6, "seed = True: must be a number"),
    ({"arrivals": "closed"}, 4, "arrivals = 'closed': must be a mapping"),
    ({"arrivals": "{kind: open}"}, 4, "arrivals"),
    (rates("[1000001]"), 4, "arrivals.rate_per_s.0 = 1000001"),
    (rates("[1e-300]"), 4, "arrivals.rate_per_s.0 = 1e-300"),
    (rates("[]"), 4, "arrivals.rate_per_s = []"),
    (rates("[true]"), 4, "arrivals.rate_per_s.0 = True: must be a number"),
    (rates("[2, 2.0]"), 4, "arrivals.rate_per_s = [2, 2.0]: each value once"),
    (closed("[100001]"), 4, "arrivals.concurrency.0 = 100001"),
    (closed("[]"), 4, "arrivals.concurrency = []"),
    (closed("[1, 4, 1]"), 4, "arrivals.concurrency = [1, 4, 1]: each value once"),
    (closed("[true]"), 4, "arrivals.concurrency.0 = True: must be a number"),
    (closed("true"), 4, "arrivals.concurrency = True: must be a list"),
    (closed("many"), 4, "arrivals.concurrency = 'many': must be a list"),
    (closed("0"), 4, "arrivals.concurrency = 0"),
    (
        {"arrivals": "{kind: constant, rate_per_s: [1], max_concurrency: 100001}"},
        4,
        "arrivals.max_concurrency = 100001",
    ),
    ({"sede": "2"}, 7, "unknown key 'sede'; did you mean 'seed'?"),
]


@pytest.mark.parametrize(("changes", "line", "message"), IMPOSSIBLE)
def test_impossible_values_are_refused(
    tmp_path: Path, changes: dict[str, str], line: int, message: str
) -> None:
    """Beyond any machine, empty, twice, or of the wrong kind: line, key and value are named."""
    text = refusal(written(tmp_path, changes))
    assert text.startswith(f":{line}: "), text
    assert message in text


def test_the_largest_values_are_taken_and_can_be_drawn(tmp_path: Path) -> None:
    """What the bounds allow neither overflows nor leaves its range."""
    largest = "{kind: lognormal, median: 1e7, sigma: 5, high: 10000000}"
    path = written(
        tmp_path,
        session(input_tokens=largest, turns="100000", think_time_s="1e7")
        | closed("[1, 100000]")
        | {"seed": str(2**63 - 1), "measure": "{duration_s: 1e7}"},
    )
    workload = load_workload(str(path))
    rng = np.random.default_rng(workload.seed)
    lengths = workload.session.input_tokens
    assert isinstance(lengths, Lognormal)
    drawn = [lengths.draw(rng) for _ in range(1000)]
    assert 1 <= min(drawn) < max(drawn) == 10**7


@given(median=st.floats(1e-9, 1e7), sigma=st.floats(0, 5), seed=st.integers(0, 2**63 - 1))
def test_lognormal_lengths_keep_their_range(median: float, sigma: float, seed: int) -> None:
    """Every allowed parameter gives whole lengths within the range."""
    lengths = Lognormal(kind="lognormal", median=median, sigma=sigma, low=3, high=10**7)
    drawn = lengths.draw(np.random.default_rng(seed))
    assert isinstance(drawn, int)
    assert 3 <= drawn <= 10**7


def test_one_value_stands_for_a_list_of_one(tmp_path: Path) -> None:
    """``concurrency: 2`` and ``rate_per_s: 0.5`` are operating points as well."""
    closed_loop = load_workload(str(written(tmp_path, closed("2")))).arrivals
    assert isinstance(closed_loop, ClosedLoop)
    assert closed_loop.concurrency == (2,)
    open_loop = load_workload(str(written(tmp_path, rates("0.5")))).arrivals
    assert isinstance(open_loop, OpenLoop)
    assert open_loop.rate_per_s == (0.5,)


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + ".yaml", "x" * 252, "a/" * 3000, ""])
def test_names_that_no_file_can_have_are_refused(name: str) -> None:
    """A name beyond the file system's limit is one short sentence."""
    with pytest.raises(DocumentError, match="workload") as caught:
        find_document("workloads", name, "workload")
    assert len(str(caught.value)) < 400


def test_huge_files_are_not_read(tmp_path: Path) -> None:
    """A file that cannot be a workload is refused by its first bytes."""
    path = tmp_path / "file.yaml"
    with path.open("wb") as file:
        file.truncate(10**12)
    assert "too many" in refusal(path)


NOISE = st.dictionaries(
    st.sampled_from([*Workload.model_fields, "kind", "? [a]\n", "x"]),
    st.text("0123456789abe.:-+!{}[]'\"&*?%@ \t#|>~_\n", max_size=25)
    | st.sampled_from(["!!int x", "!!set {a}", "!!omap [a: 1]", "{kind: uniform}", "{<<: {a: 1}}"]),
)


@given(changes=NOISE)
def test_noise_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, str]
) -> None:
    """Whatever stands in a file, nothing but a document or a DocumentError comes out."""
    path = written(tmp_path_factory.mktemp("noise"), changes)
    with suppress(DocumentError):
        assert isinstance(load_document(path, Workload), Workload)


def test_every_shipped_file_is_right() -> None:
    """Workloads and machines that come with wattbench load; the template is an open chat."""
    for name in profile_names():
        assert load_profile(name).name == name
    for name in workload_names():
        assert load_workload(name).name == name
    chat = load_workload("chat-open")
    assert isinstance(chat.arrivals, OpenLoop)
    assert (chat.arrivals.kind, bool(chat.arrivals.max_concurrency)) == ("poisson", True)
    assert isinstance(chat.session.input_tokens, Lognormal)
    assert chat.session.turns.draw(np.random.default_rng(0)) >= 1
    assert chat.session.think_time_s > 0


def page() -> str:
    return (ROOT / "docs" / "workloads.md").read_text()


def models() -> list[type[BaseModel]]:
    modules = (workload_format, arrivals, files, lengths, prompts)
    found = [each for m in modules for each in vars(m).values() if isinstance(each, type)]
    return [each for each in found if issubclass(each, BaseModel) and each.model_fields]


def test_the_page_names_every_key_and_its_default() -> None:
    """docs/workloads.md has a row for each key of each model, with the default of the code."""
    text = page()
    assert {Workload, SessionShape, Lognormal} <= set(models())
    for model in models():
        for key, field in model.model_fields.items():
            rows = re.findall(rf"^\| `(?:\w+\.)*{key}` \|.*$", text, flags=re.MULTILINE)
            assert rows, f"{model.__name__}.{key} has no row"
            if isinstance(field.default, bool | int | float | str):
                shown = str(field.default).lower().removesuffix(".0")
                assert any(f"| {shown} |" in row for row in rows), (model, key, field.default)


def test_examples_of_the_page_are_right(tmp_path: Path) -> None:
    """Each whole file on the page loads, each fragment fits into a workload."""
    (tmp_path / "questions.jsonl").write_text('{"prompt": "Why?"}\n')
    (tmp_path / "monday.csv").write_text("time_s,input_tokens,output_tokens\n0,5,5\n2,9,3\n")
    examples = re.findall(r"```yaml\n(.*?)```", page(), flags=re.DOTALL)
    assert len(examples) >= 4
    for example in examples:
        path = tmp_path / "example.yaml"
        whole = "name:" in example
        lines = LINES if "trace" not in example else LINES | {"session": "{}"}
        others = {k: v for k, v in lines.items() if not re.search(rf"^{k}:", example, re.MULTILINE)}
        rest = "" if whole else "".join(f"{key}: {value}\n" for key, value in others.items())
        path.write_text(example + rest)
        load_workload(str(path))


def test_models_refuse_what_files_may_not_hold() -> None:
    """The bounds are the models', not the file reader's."""
    with pytest.raises(ValidationError):
        Lognormal(kind="lognormal", median=1.0, sigma=1e9, high=5)
