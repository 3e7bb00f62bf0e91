"""Tests of the transformers backend against the real library, with a random model."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
from engine_use import answer, request, run

from wattbench.backends.demo_model import DemoShape
from wattbench.backends.transformers import TransformersBackend, TransformersOptions
from wattbench.backends.transformers_worker import EngineSettings
from wattbench.core.errors import BackendError, DeviceMissing, EngineDied, OptionError, UsageError
from wattbench.core.load import Message, TokenChunk, Usage
from wattbench.plugins import PluginContext

CONTEXT = PluginContext(hardware=None, seed=0)
TINY = DemoShape(
    layers=2, hidden=64, heads=2, kv_heads=1, feed_forward=128, vocabulary=400, context=512
)
needs_torch = pytest.mark.skipif(
    TransformersBackend.availability() is not None, reason="needs the extra 'torch'"
)


class Tiny(TransformersBackend):
    """The demo model in a size that loads fast."""

    def _settings(self) -> EngineSettings:
        return dataclasses.replace(super()._settings(), shape=TINY)


def backend(**options: Any) -> TransformersBackend:
    return Tiny(TransformersOptions(device=options.pop("device", "cpu"), **options), CONTEXT)


def usage(chunks: list[TokenChunk]) -> Usage:
    assert chunks[-1].usage is not None
    return chunks[-1].usage


def tokens(chunks: list[TokenChunk]) -> int:
    return sum(chunk.tokens or 0 for chunk in chunks)


@needs_torch
def test_what_it_says_counts_batches_and_cancels() -> None:
    """Many questions to one engine, since importing it is what takes time."""

    async def use(engine: TransformersBackend) -> None:
        alone = await answer(engine, request(inputs=17, outputs=9))
        assert [chunk.tokens for chunk in alone] == [1] * 9 + [0]
        assert usage(alone) == Usage(
            input_tokens=17, output_tokens=9, cached_tokens=0, finish_reason="length"
        )
        assert alone[-1].text
        # Padding to the longest prompt of a batch changes no answer.
        asked = [request(index, inputs=17 + 5 * index, outputs=9 - index) for index in range(5)]
        together = await asyncio.gather(*(answer(engine, each) for each in asked))
        assert together[0] == alone
        for index, chunks in enumerate(together):
            assert (usage(chunks).input_tokens, tokens(chunks)) == (17 + 5 * index, 9 - index)

        text = Message(role="user", text="bado kuri")
        spoken = await answer(engine, request(messages=(text,), ignore_eos=False))
        assert 1 <= (usage(spoken).input_tokens or 0) <= 9
        assert 1 <= tokens(spoken) <= 6
        for impossible in (request(inputs=0), request(outputs=0), request(inputs=600)):
            with pytest.raises(BackendError, match="refused it"):
                await answer(engine, impossible)

        other = asyncio.create_task(answer(engine, request(1, outputs=40)))
        stream = engine.generate(request(3, outputs=500))
        await anext(stream)
        await stream.aclose()
        assert tokens(await other) == 40
        assert tokens(await answer(engine, request())) == 6

    async def whole() -> None:
        engine = backend()
        try:
            info = await engine.open()
            assert info.model == "demo-llama-46m"
            assert info.engine.startswith("transformers ")
            assert "torch" in info.engine
            assert info.random_weights
            assert info.mode.text == "f32, KV f32"
            assert info.detail["vocabulary"] == TINY.vocabulary
            assert info.detail["parameters"] == TINY.parameters
            assert info.detail["batching"] == "static"
            await use(engine)
            running = asyncio.create_task(answer(engine, request(7, outputs=500)))
            await asyncio.sleep(0.1)
            os.kill(info.process_ids[0], 9)
            with pytest.raises(EngineDied, match="killed by SIGKILL"):
                await running
        finally:
            await engine.close()

    asyncio.run(whole())


@needs_torch
def test_guessed_tokens_come_several_at_a_time() -> None:
    async def use(engine: TransformersBackend) -> None:
        asked = (request(index, outputs=60) for index in range(2))
        found = await asyncio.gather(*(answer(engine, each) for each in asked))
        assert [tokens(chunks) for chunks in found] == [60, 60]
        assert max(chunk.tokens or 0 for chunks in found for chunk in chunks) > 1

    run(backend(speculative="prompt-lookup", precision="bf16"), use)


@needs_torch
def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    torch, library = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from wattbench.backends.transformers_worker import _demo

    model, tokenizer = _demo(torch, library, TINY)
    folder = tmp_path / "mine"
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)

    async def whole() -> None:
        engine = TransformersBackend(TransformersOptions(model=str(folder), device="cpu"), CONTEXT)
        try:
            info = await engine.open()
            assert (info.model, info.mode.precision) == ("mine", "bf16")
            assert len(str(info.detail["model_sha256"])) == 64
            assert tokens(await answer(engine, request())) == 6
        finally:
            await engine.close()

    asyncio.run(whole())


@needs_torch
def test_a_folder_that_the_engine_cannot_load(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    engine = TransformersBackend(TransformersOptions(model=str(tmp_path), device="cpu"), CONTEXT)
    with pytest.raises(BackendError, match=r"cannot load .* on cpu: .*check that the folder"):
        run(engine, answer_none)


async def answer_none(engine: TransformersBackend) -> None:
    """Only open it."""


@needs_torch
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(DeviceMissing, match=r"no device 'cuda:77'; available: .*cpu") as caught:
        run(backend(device="cuda:77"), answer_none)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threads": 0}, "threads=0 must be"),
        ({"max_batch": 0}, "max_batch=0 must be"),
        ({"max_batch": 4, "speculative": "prompt-lookup"}, "one request at a time"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        backend(**options)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    for folder, words in ((tmp_path, "has no config.json"), (tmp_path / "no", "is no folder")):
        with pytest.raises(UsageError, match=words):
            backend(model=str(folder))


@pytest.mark.skipif(TransformersBackend.availability() is None, reason="torch is installed")
def test_without_torch_it_says_what_to_install() -> None:
    with pytest.raises(BackendError, match=r"torch.* not installed; pip install 'wattbench\[torch"):
        run(backend(), answer_none)
