"""The contract of a backend: kept by those that are shipped, broken in ways that are named."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from wire import emulated

from wattbench.backends.demo_model import DemoShape, write_demo_model
from wattbench.backends.emulated import EmulatedBackend, EmulatedOptions
from wattbench.backends.openai import OpenAIBackend, OpenAIOptions
from wattbench.backends.openvino import OpenVINOBackend, OpenVINOOptions
from wattbench.backends.transformers import TransformersBackend, TransformersOptions
from wattbench.backends.transformers_worker import EngineSettings
from wattbench.core.load import InferenceRequest, TokenChunk, Usage
from wattbench.core.run import EngineInfo, Mode
from wattbench.hardware import load_profile
from wattbench.plugins import PluginContext, option
from wattbench.testing import check_backend

TINY = DemoShape(
    layers=2, hidden=64, heads=2, kv_heads=1, feed_forward=128, vocabulary=400, context=512
)


def test_emulated_keeps_the_contract() -> None:
    context = PluginContext(hardware=load_profile("h100-sxm"), seed=0)
    info = check_backend(EmulatedBackend, EmulatedOptions(time="real"), context=context)
    assert info.model == "llama-3.1-8b"


@pytest.mark.skipif(OpenVINOBackend.availability() is not None, reason="needs the extra 'cpu'")
@pytest.mark.parametrize("speculative", ["none", "prompt-lookup"])
def test_openvino_keeps_the_contract(
    tmp_path: Path, speculative: Literal["none", "prompt-lookup"]
) -> None:
    model = tmp_path / "tiny.gguf"
    write_demo_model(model, "q8_0", TINY)
    options = OpenVINOOptions(model=str(model), speculative=speculative)
    assert check_backend(OpenVINOBackend, options).process_ids


def test_openai_keeps_the_contract() -> None:
    with emulated("h100-sxm", "--port", "0") as (url, _):
        info = check_backend(OpenAIBackend, OpenAIOptions(url=f"{url}/v1"))
    assert info.tokens_source == "usage"


class TinyTransformers(TransformersBackend):
    """The demo model in a size that loads fast."""

    def _settings(self) -> EngineSettings:
        return dataclasses.replace(super()._settings(), shape=TINY)


@pytest.mark.skipif(
    TransformersBackend.availability() is not None, reason="needs the extra 'torch'"
)
def test_transformers_keeps_the_contract() -> None:
    check_backend(TinyTransformers, TransformersOptions(device="cpu"))


@dataclass(frozen=True, slots=True, kw_only=True)
class BadOptions:
    """Which rule is broken."""

    rule: str = option("", "the rule that is broken")


class Bad:
    """A backend that keeps every rule but one."""

    Options = BadOptions

    def __init__(self, options: BadOptions, context: PluginContext) -> None:
        self._rule, self._opened, self._used = options.rule, False, False
        self._tasks: set[asyncio.Task[None]] = set()

    @staticmethod
    def availability() -> str | None:
        """Always usable."""
        return None

    async def open(self) -> EngineInfo:
        """Say what it is."""
        self._opened = True
        model = "" if self._rule == "nameless" else "bad"
        detail = {"x": float("nan")} if self._rule == "not to be stored" else {}
        return EngineInfo(
            model=model, engine="none", tokens_source="engine", mode=Mode(), detail=detail
        )

    async def generate(self, request: InferenceRequest) -> AsyncIterator[TokenChunk]:
        """Give a token every millisecond."""
        rule, wanted = self._rule, request.max_output_tokens
        if not wanted and rule == "foreign error":
            raise KeyError("no tokens")
        try:
            for number in range(wanted - (rule == "short")):
                await asyncio.sleep(0.001)
                usage = Usage(input_tokens=1, output_tokens=1) if rule == "early" else None
                yield TokenChunk(
                    tokens=2 if rule == "miscounted" and number == 0 else 1, usage=usage
                )
        except asyncio.CancelledError:
            if rule != "deaf":
                raise
        if rule == "silent":
            return
        count = wanted - (rule == "short")
        yield TokenChunk(tokens=0, usage=Usage(input_tokens=12, output_tokens=count))

    async def close(self) -> None:
        """Leave."""
        if self._rule == "fragile" and not self._opened:
            raise RuntimeError("never opened")
        if self._rule == "left over" and self._opened:
            self._tasks.add(asyncio.create_task(asyncio.sleep(30)))


def test_a_good_backend_keeps_the_contract() -> None:
    assert check_backend(Bad, BadOptions()).engine == "none"


@pytest.mark.parametrize(
    ("rule", "error", "words"),
    [
        ("nameless", AssertionError, "names no model"),
        ("not to be stored", ValueError, "JSON compliant"),
        ("early", AssertionError, "carries usage, which is for the last"),
        ("silent", AssertionError, "the last chunk carries no usage"),
        ("miscounted", AssertionError, "chunks have 17 tokens, usage has 16"),
        ("short", AssertionError, "ignore_eos: 16 tokens were asked for, 15 came"),
        ("deaf", AssertionError, "did not pass CancelledError on"),
        ("foreign error", KeyError, "no tokens"),
        ("fragile", RuntimeError, "never opened"),
        ("left over", AssertionError, "has left tasks running"),
    ],
)
def test_a_broken_rule_is_named(rule: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        check_backend(Bad, BadOptions(rule=rule))
