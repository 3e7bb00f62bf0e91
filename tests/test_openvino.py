"""Tests of the OpenVINO backend against the real engine, with a model small enough to load fast."""

from __future__ import annotations

import asyncio
import dataclasses
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from engine_use import answer, request, run

from wattbench.backends.demo_model import DemoShape, write_demo_model
from wattbench.backends.model_file import ModelFile, file_sha256
from wattbench.backends.openvino import OpenVINOBackend, OpenVINOOptions
from wattbench.backends.openvino_worker import EngineSettings
from wattbench.core.errors import BackendError, EngineDied, OptionError, UsageError
from wattbench.core.load import Message, TokenChunk, Usage
from wattbench.plugins import PluginContext, describe_options, parse_options, parse_spec

if OpenVINOBackend.availability() is not None:
    pytest.skip("needs the extra 'cpu'", allow_module_level=True)

CONTEXT = PluginContext(hardware=None, seed=0)
TINY = DemoShape(
    layers=2, hidden=64, heads=2, kv_heads=1, feed_forward=128, vocabulary=400, context=512
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Path:
    path = folder / "tiny.gguf"
    write_demo_model(path, "q8_0", TINY)
    return path


def backend(model: Path, **options: Any) -> OpenVINOBackend:
    return OpenVINOBackend(OpenVINOOptions(model=str(model), **options), CONTEXT)


def usage(chunks: list[TokenChunk]) -> Usage:
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].usage is not None
    return chunks[-1].usage


def tokens(chunks: list[TokenChunk]) -> int:
    return sum(chunk.tokens or 0 for chunk in chunks)


def test_engine_tells_what_it_is(tiny: Path) -> None:
    async def whole() -> None:
        engine = backend(tiny, threads=1)
        try:
            info = await engine.open()
        finally:
            await engine.close()
        assert info.engine.startswith("openvino-genai 20")
        assert info.model == "tiny"
        assert info.tokens_source == "engine"
        assert not info.random_weights
        assert info.mode.precision == "int8"
        assert info.mode.kv_precision in {"u8", "f16", "bf16", "f32"}
        assert info.mode.prefix_cache is False
        assert info.detail["arithmetic"] == "f32"
        assert info.detail["threads"] == 1
        assert info.detail["vocabulary"] == TINY.vocabulary
        assert info.detail["parameters"] == TINY.parameters
        assert info.detail["model_sha256"] == file_sha256(tiny)
        assert info.detail["model_bytes"] == tiny.stat().st_size
        with pytest.raises(ProcessLookupError):  # close() has ended the child
            os.kill(info.process_ids[0], 0)

    asyncio.run(whole())


def test_counts_texts_batches_and_repeats(tiny: Path) -> None:
    """Several short questions to one engine, since loading it is what takes time."""

    async def use(engine: OpenVINOBackend) -> None:
        alone = await answer(engine, request(inputs=17, outputs=9))
        assert usage(alone) == Usage(
            input_tokens=17, output_tokens=9, cached_tokens=0, finish_reason="length"
        )
        assert tokens(alone) == 9
        assert [chunk.tokens for chunk in alone] == [1] * 9 + [0]
        assert alone[-1].text

        again = await answer(engine, request(index=5, inputs=17, outputs=9, prompt_seed=0))
        assert again == alone
        other = await answer(engine, request(index=6, inputs=17, outputs=9, prompt_seed=1))
        assert other[-1].text != alone[-1].text

        asked = [request(index, inputs=5 + index, outputs=3 + index) for index in range(4)]
        for index, chunks in enumerate(await asyncio.gather(*(answer(engine, r) for r in asked))):
            assert usage(chunks).input_tokens == 5 + index
            assert usage(chunks).output_tokens == tokens(chunks) == 3 + index

        text = Message(role="user", text="bado kuri")
        system = Message(role="system", tokens=11, seed=3)
        alone = await answer(engine, request(messages=(text,)))
        both = await answer(engine, request(messages=(system, text)))
        assert usage(both).input_tokens == 11 + (usage(alone).input_tokens or 0) > 11

        free = await answer(engine, request(outputs=4, ignore_eos=False))
        assert 1 <= (usage(free).output_tokens or 0) <= 4

        for impossible in (request(inputs=0), request(outputs=0)):
            with pytest.raises(BackendError, match="refused it"):
                await answer(engine, impossible)
        assert tokens(await answer(engine, request())) == 6

    run(backend(tiny), use)


def test_abandoned_request_is_cancelled_and_disturbs_no_other(tiny: Path) -> None:
    async def abandon(engine: OpenVINOBackend, index: int) -> None:
        stream = engine.generate(request(index, outputs=100_000))
        async for _ in stream:
            break
        await stream.aclose()

    async def use(engine: OpenVINOBackend) -> None:
        other = asyncio.create_task(answer(engine, request(1, outputs=40)))
        waiting = asyncio.create_task(answer(engine, request(2, outputs=100_000)))
        await abandon(engine, 3)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert tokens(await other) == 40
        # With max_batch=2 these run only if the abandoned ones have left the engine.
        for index in (4, 5):
            assert tokens(await answer(engine, request(index))) == 6

    run(backend(tiny, max_batch=2), use)


def test_request_beyond_the_cache_fails_alone(tiny: Path) -> None:
    class SmallCache(OpenVINOBackend):
        def _settings(self, model: Path, draft: ModelFile | None = None) -> EngineSettings:
            return dataclasses.replace(super()._settings(model, draft), cache_blocks=8)

    async def use(engine: OpenVINOBackend) -> None:
        for inputs, outputs in ((2000, 4), (32, 2000)):
            with pytest.raises(BackendError, match=r"gave up after \d+ of .* raise cache_gib"):
                await answer(engine, request(inputs=inputs, outputs=outputs))
        assert tokens(await answer(engine, request())) == 6

    run(SmallCache(OpenVINOOptions(model=str(tiny)), CONTEXT), use)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_death_of_the_engine(tiny: Path, name: str) -> None:
    async def whole() -> None:
        engine = backend(tiny)
        try:
            info = await engine.open()
            running = [
                asyncio.create_task(answer(engine, request(index, outputs=100_000)))
                for index in range(2)
            ]
            stream = engine.generate(request(9, outputs=100_000))
            await anext(stream)
            os.kill(info.process_ids[0], signal.Signals[name])
            for outcome in await asyncio.gather(*running, return_exceptions=True):
                assert isinstance(outcome, EngineDied)
                assert f"killed by {name}" in str(outcome)
            with pytest.raises(EngineDied, match=name):
                await asyncio.wait_for(anext(aiter(engine.generate(request()))), 20)
            with pytest.raises(EngineDied, match=name):
                async for _ in stream:
                    pass
        finally:
            await engine.close()

    asyncio.run(whole())


def test_ctrl_c_does_not_reach_the_engine(tiny: Path) -> None:
    async def whole() -> None:
        engine = backend(tiny)
        try:
            info = await engine.open()
            os.kill(info.process_ids[0], signal.SIGINT)
            assert tokens(await answer(engine, request())) == 6
        finally:
            await engine.close()

    asyncio.run(whole())


def test_death_of_the_engine_while_loading(tiny: Path) -> None:
    async def whole() -> None:
        loading = asyncio.create_task(backend(tiny).open())
        while not multiprocessing.active_children():
            await asyncio.sleep(0.01)
        multiprocessing.active_children()[0].kill()
        with pytest.raises(BackendError, match=r"cannot load .*tiny\.gguf .*killed by SIGKILL"):
            await loading

    asyncio.run(whole())


def test_interrupted_loading_leaves_no_process(tiny: Path) -> None:
    async def whole() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(backend(tiny).open(), 0.2)

    asyncio.run(whole())
    assert not multiprocessing.active_children()


def test_default_is_the_demo_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATTBENCH_CACHE", str(tmp_path))

    async def whole() -> None:
        engine = OpenVINOBackend(OpenVINOOptions(), CONTEXT)
        try:
            info = await engine.open()
            assert info.model == "demo-llama-46m"
            assert info.random_weights
            assert info.mode.precision == "int8"
            assert info.detail["parameters"] == DemoShape().parameters == 45_953_536
            assert tokens(await answer(engine, request())) == 6
        finally:
            await engine.close()

    asyncio.run(whole())
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".gguf", ".sha256"]


def test_missing_or_wrong_model_is_a_usage_error(folder: Path) -> None:
    text = folder / "model.txt"
    text.write_text("x")
    for path, words in (
        (folder / "none.gguf", "no model at"),
        (folder, "has no openvino_model.xml"),
        (text, r"must end in \.gguf"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            backend(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"GGUF" + random.Random(1).randbytes(5000), "version"),
        (b"GGUF\x03\0\0\0" + random.Random(2).randbytes(5000), "ends within its header"),
        (b"This is a text.\n" * 50, "does not begin with GGUF"),
        (b"", "empty"),
    ],
)
def test_damaged_model_file(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    with pytest.raises(BackendError, match=words) as caught:
        asyncio.run(backend(path).open())
    assert str(path) in str(caught.value)
    assert "fetch or convert it again" in str(caught.value)


def test_truncated_model_file(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.gguf"
    path.write_bytes(tiny.read_bytes()[: tiny.stat().st_size // 2])
    with pytest.raises(BackendError, match="should have at least"):
        asyncio.run(backend(path).open())


def test_model_that_only_the_engine_finds_wrong(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "foreign.gguf"
    path.write_bytes(tiny.read_bytes().replace(b"blk.1.attn_q.weight", b"blk.9.attn_q.weight"))
    with pytest.raises(BackendError, match="cannot load") as caught:
        asyncio.run(backend(path).open())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks up processes in /proc")
def test_child_leaves_when_its_parent_is_killed(tiny: Path) -> None:
    script = (
        "import asyncio, os, sys\n"
        "from wattbench.backends.openvino import OpenVINOBackend, OpenVINOOptions\n"
        "from wattbench.plugins import PluginContext\n"
        "async def main():\n"
        "    options = OpenVINOOptions(model=sys.argv[1])\n"
        "    backend = OpenVINOBackend(options, PluginContext(hardware=None, seed=0))\n"
        "    print((await backend.open()).process_ids[0], flush=True)\n"
        "    await asyncio.sleep(100)\n"
        "if __name__ == '__main__':\n"
        "    asyncio.run(main())\n"
    )
    file = tiny.with_name("parent.py")
    file.write_text(script)
    with subprocess.Popen([sys.executable, str(file), str(tiny)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    for _ in range(200):
        if not _alive(child):
            break
        time.sleep(0.05)
    assert not _alive(child)


def _alive(pid: int) -> bool:
    """Whether a process runs; an orphan that nobody reaps does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_unknown_device_lists_the_known_ones(tiny: Path) -> None:
    with pytest.raises(BackendError, match=r"no device 'XYZ'; available: .*CPU"):
        asyncio.run(backend(tiny, device="XYZ").open())


def test_options_that_cannot_be_meant(tiny: Path) -> None:
    for options, words in (
        ({"precision": "bf16", "threads": 1}, "SIGFPE.*precision=f32 or int8, or threads=2"),
        ({"model": str(tiny), "precision": "int4"}, "used as they are"),
        ({"threads": 0}, "threads=0"),
        ({"cache_gib": 0}, "cache_gib=0"),
        ({"max_batch": -1}, "max_batch=-1"),
    ):
        with pytest.raises(OptionError, match=words):
            OpenVINOBackend(OpenVINOOptions(**options), CONTEXT)


def test_options_from_the_command_line() -> None:
    spec = parse_spec("openvino,precision=f32,threads=2,prefix_cache=yes")
    options = parse_options(spec, OpenVINOBackend.Options)
    assert options == OpenVINOOptions(precision="f32", threads=2, prefix_cache=True)
    assert all(entry["help"] for entry in describe_options(OpenVINOBackend.Options))


def test_generate_needs_an_open_engine(tiny: Path) -> None:
    with pytest.raises(BackendError, match="not open"):
        asyncio.run(answer(backend(tiny), request()))
