"""Modes of the OpenVINO backend: precision, precision of the cache, guessed tokens, devices."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command import called
from hypothesis import given
from hypothesis import strategies as st

from wattbench.backends.demo_model import DemoShape, write_demo_model
from wattbench.backends.openvino import OpenVINOBackend, OpenVINOOptions
from wattbench.backends.openvino_worker import short_texts
from wattbench.core.errors import BackendError, DeviceMissing, OptionError
from wattbench.core.load import InferenceRequest, Message
from wattbench.core.run import EngineInfo, Mode
from wattbench.plugins import PluginContext

if OpenVINOBackend.availability() is not None:
    pytest.skip("needs the extra 'cpu'", allow_module_level=True)

CONTEXT = PluginContext(hardware=None, seed=0)
TINY = DemoShape(
    layers=2, hidden=64, heads=2, kv_heads=1, feed_forward=128, vocabulary=400, context=512
)
TINIER = DemoShape(
    layers=1, hidden=32, heads=2, kv_heads=1, feed_forward=64, vocabulary=400, context=512
)
WORKLOAD = """
name: short
about: A few short answers.
session: {input_tokens: 16, output_tokens: 24}
arrivals: {kind: closed, concurrency: [1]}
idle_s: 0.0
warmup: {requests_per_user: 1}
measure: {duration_s: 1.0}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Path:
    path = folder / "tiny.gguf"
    write_demo_model(path, "q8_0", TINY)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WATTBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def answers(model: Path, **options: Any) -> tuple[EngineInfo, list[list[int]]]:
    """Tokens of each chunk of four answers of 30 tokens that are computed together."""
    engine = OpenVINOBackend(OpenVINOOptions(model=str(model), **options), CONTEXT)

    async def one(index: int) -> list[int]:
        asked = InferenceRequest(
            index=index,
            session_index=index,
            turn_index=0,
            messages=(Message(role="user", tokens=12, seed=index),),
            max_output_tokens=30,
        )
        chunks = [chunk async for chunk in engine.generate(asked)]
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.output_tokens == 30
        return [chunk.tokens for chunk in chunks if chunk.tokens]

    async def whole() -> tuple[EngineInfo, list[list[int]]]:
        try:
            info = await engine.open()
            return info, list(await asyncio.gather(*map(one, range(4))))
        finally:
            await engine.close()

    return asyncio.run(whole())


def test_the_models_own_draft_is_right_and_another_is_wrong(
    folder: Path, tiny: Path, cache: Path
) -> None:
    """Chunks carry their true numbers of tokens, so that the share of right guesses can be told."""
    other = folder / "other.gguf"
    write_demo_model(other, "f16", TINIER)
    for draft, mode in ((tiny, "draft of 4, tiny int8"), (other, "draft of 4, other f16")):
        options = {"draft_model": str(draft), "assistant_tokens": 4}
        info, found = answers(tiny, speculative="draft", **options)
        assert info.mode.speculative == mode
        assert len(str(info.detail["draft_sha256"])) == 64
        assert [sum(chunks) for chunks in found] == [30] * 4
        assert max(max(chunks) for chunks in found) == (5 if draft == tiny else 1)
    assert sorted(path.name.partition("-")[0] for path in cache.iterdir()) == ["other", "tiny"]
    converted = next(cache.glob("tiny-*"))
    before = {file: file.stat().st_mtime_ns for file in converted.iterdir()}
    info, again = answers(tiny, speculative="draft", draft_model=str(converted), assistant_tokens=4)
    assert max(max(chunks) for chunks in again) == 5
    assert {file: file.stat().st_mtime_ns for file in converted.iterdir()} == before


def test_prompt_lookup_gives_the_same_answer_in_fewer_chunks(tiny: Path) -> None:
    info, found = answers(tiny, speculative="prompt-lookup", assistant_tokens=3, max_ngram=2)
    assert info.mode.speculative == "prompt-lookup of 3, 2-grams"
    assert [sum(chunks) for chunks in found] == [30] * 4
    assert max(max(chunks) for chunks in found) > 1


def test_a_draft_with_another_tokenizer(folder: Path, tiny: Path, cache: Path) -> None:
    foreign = folder / "foreign.gguf"
    write_demo_model(foreign, "q8_0", TINIER, seed=1)
    with pytest.raises(BackendError, match="a draft needs the tokenizer of the model"):
        answers(tiny, speculative="draft", draft_model=str(foreign))


def test_a_draft_that_cannot_be_converted(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WATTBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(BackendError, match=r"tiny\.gguf cannot be converted .*WATTBENCH_CACHE"):
        answers(tiny, speculative="draft", draft_model=str(tiny))


@pytest.mark.parametrize("kv", ["u8", "u4", "f16"])
def test_keys_and_values_are_kept_as_asked(tiny: Path, kv: str) -> None:
    info, _ = answers(tiny, threads=1, kv_precision=kv)
    assert info.mode.kv_precision == kv


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"draft_model": "x.gguf"}, "add speculative=draft"),
        ({"speculative": "draft", "model": "x.gguf"}, "needs draft_model=…"),
        ({"kv_precision": "bf16", "precision": "f32"}, "take kv_precision=u8"),
        ({"kv_precision": "bf16", "threads": 1}, "threads=2"),
        ({"assistant_tokens": 0}, "assistant_tokens=0"),
        ({"max_ngram": 0}, "max_ngram=0"),
    ],
)
def test_modes_that_cannot_be_meant(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        OpenVINOBackend(OpenVINOOptions(**options), CONTEXT)


def test_the_text_of_a_mode() -> None:
    assert Mode().text == "precision not told"
    assert Mode(precision="int8", kv_precision="u8", speculative="none").text == "int8, KV u8"
    rich = Mode(precision="bf16", speculative="ngram", prefix_cache=True, adapter="a")
    assert rich.text == "bf16, ngram, prefix cache, adapter a"


def wattbench(
    *arguments: str, code: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    done = called(*arguments, **environment)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.parametrize("device", ["NPU", "GPU", "XYZ"])
def test_a_device_that_is_not_there_is_a_usage_error(tiny: Path, device: str) -> None:
    """Whatever the model's format is."""
    with pytest.raises(DeviceMissing, match=f"no device '{device}'; available: CPU") as caught:
        answers(tiny, device=device)
    assert caught.value.exit_code == 2


def test_a_missing_device_costs_its_own_points_of_a_sweep(tmp_path: Path, tiny: Path) -> None:
    workload = tmp_path / "short.yaml"
    workload.write_text(WORKLOAD)
    axis = ("--backend", f"openvino,model={tiny}", "--sweep", "backend.device=XYZ,CPU")
    place = ("--db", str(tmp_path / "x.db"), "--json")
    done = wattbench("run", str(workload), *axis, *place, code=1)
    assert "backend.device=XYZ: " in done.stderr
    (point,) = json.loads(done.stdout)["points"]
    assert point["operating_point"]["backend.device"] == "CPU"
    backend = f"openvino,model={tiny},device=GPU"
    done = wattbench("run", str(workload), "--backend", backend, *place, code=2)
    assert "there is no device 'GPU'; available: CPU; take one of these" in done.stderr
    assert "Traceback" not in done.stderr


def computes_in_bf16() -> bool:
    """Whether this CPU has bf16, and two cores for it."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.is_file() else ""
    many = len(os.sched_getaffinity(0)) > 1 if hasattr(os, "sched_getaffinity") else False
    return many and ("avx512_bf16" in flags or "amx_bf16" in flags)


@pytest.mark.skipif(not computes_in_bf16(), reason="needs two cores with bf16")
def test_one_workload_gives_four_rows_that_can_be_told_apart(tmp_path: Path) -> None:
    workload = tmp_path / "short.yaml"
    workload.write_text(WORKLOAD)
    database, cache = str(tmp_path / "x.db"), str(tmp_path / "cache")
    common = ("run", str(workload), "--db", database, "--quiet", "--meter", "cpu-load")
    backend = "openvino,threads=2"
    for sweep in ("backend.precision=bf16,int8,int4", "backend.speculative=prompt-lookup"):
        wattbench(*common, "--backend", backend, "--sweep", sweep, WATTBENCH_CACHE=cache)
    rows = json.loads(wattbench("list", "runs", "--db", database, "--json").stdout)["runs"]
    assert [row["mode"].partition(",")[0] for row in rows] == ["bf16", "int8", "int4", "int8"]
    assert len({row["mode"] for row in rows}) == 4
    ids = [row["run_id"] for row in rows]
    shown = wattbench("show", ",".join(ids), "--db", database).stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("precision  ")][:1]
    assert line.split()[1:4] == ["bf16", "int8", "int4"]
    assert "prompt-lookup of 5, 3-grams" in shown
    assert shown.count("J / output token") == 2
    assert "– (" not in "".join(r for r in shown.splitlines() if r.startswith("J / output token"))
    apart = wattbench("compare", ids[1], ids[3], "--db", database).stdout
    assert "→ int8, KV" in apart
    assert "prompt-lookup" in apart


@given(st.text(alphabet="ab é", max_size=9000))
def test_long_texts_are_tokenised_in_pieces(text: str) -> None:
    """Nothing is lost, and a cut is before a space wherever there is one."""
    pieces = list(short_texts(text))
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 2000
    for before, after in itertools.pairwise(pieces):
        assert after.startswith(" ") or " " not in before[1:]
