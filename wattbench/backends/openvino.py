"""Backend ``openvino``: OpenVINO GenAI with continuous batching, in a process of its own.

Without a model it serves a small random one that it writes itself, so that a first measurement
needs no download. Texts are tokenised as they are, without a chat template, and decoding is
greedy.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wattbench.backends.demo_model import DemoShape, WeightType, demo_model
from wattbench.backends.model_file import IR_MODEL, ModelFile, inspect
from wattbench.backends.openvino_messages import Ended, EngineSettings, Part, Ready, on_cpu
from wattbench.backends.openvino_process import Died, EngineProcess
from wattbench.core.errors import BackendError, EngineDied, OptionError, UsageError
from wattbench.core.load import InferenceRequest, TokenChunk, Usage
from wattbench.core.run import EngineInfo, Mode
from wattbench.plugins import PluginContext, option

_INSTALL = "pip install 'wattbench[cpu]'"
_PACKAGES = {"openvino_genai": "openvino-genai", "gguf": "gguf", "tokenizers": "tokenizers"}
# int8 for auto: with one thread it beats f32 at every batch size, and it never needs bf16, which
# not every CPU has.
_DEMO_WEIGHTS: dict[str, WeightType] = {
    "auto": "q8_0",
    "f32": "f16",
    "bf16": "f16",
    "int8": "q8_0",
    "int4": "q4_0",
}


@dataclass(frozen=True, slots=True)
class OpenVINOOptions:
    """Options of ``openvino``."""

    model: str | None = option(
        None, "A .gguf file or a folder in OpenVINO's format; without one, a random demo model."
    )
    device: str = option("CPU", "Device as OpenVINO names it.")
    precision: Literal["auto", "f32", "bf16", "int8", "int4"] = option(
        "auto",
        "Demo model: auto is int8. Own model: f32 or bf16 set the arithmetic, auto leaves it.",
    )
    threads: int | None = option(None, "Threads of computation; by default all cores but one.")
    cache_gib: int = option(1, "Room for keys and values [GiB].")
    max_batch: int = option(64, "Most requests computed together.")
    prefix_cache: bool = option(False, "Compute equal beginnings of prompts only once.")
    stream_text: bool = option(
        False, "Tell each step's text, not only the whole one at the end; costs a few per cent."
    )


class OpenVINOBackend:
    """OpenVINO GenAI on this machine.

    Args:
        options: What to serve and how.
        context: What the run gives to its plug-ins.

    Raises:
        OptionError: If an option cannot be meant, alone or beside the others.
        UsageError: If there is no model at the given path.
    """

    Options = OpenVINOOptions
    default_hardware = "local-cpu"
    default_meter = "cpu-load"

    def __init__(self, options: OpenVINOOptions, context: PluginContext) -> None:
        del context  # prompts carry their own seeds, and greedy decoding needs none
        self._options = options
        cores = _available_cores()
        self._threads = options.threads if options.threads is not None else max(1, cores - 1)
        self._one_thread = on_cpu(options.device) and min(self._threads, cores) == 1
        _check_numbers(options, self._threads)
        _check_precision(options, self._one_thread)
        _check_model(options.model)
        self._process: EngineProcess | None = None

    @staticmethod
    def availability() -> str | None:
        """Why this backend cannot work here, None if it can."""
        missing = [name for module, name in _PACKAGES.items() if not _installed(module)]
        if missing:
            return f"{', '.join(missing)} not installed; {_INSTALL}"
        return None

    async def open(self) -> EngineInfo:
        """Load the model in a new process.

        Raises:
            BackendError: If the engine is not installed, or cannot load the model on the device.
        """
        if (why_not := self.availability()) is not None:
            raise BackendError(f"openvino: {why_not}")
        model = await asyncio.to_thread(self._find_model)
        settings = self._settings(model.path)
        try:
            process = EngineProcess(settings)
        except OSError as error:
            raise BackendError(f"openvino: no process for the engine: {error}") from error
        try:
            ready = await process.ready()
        except BackendError as error:
            await process.stop()
            raise BackendError(
                f"openvino: the engine cannot load {model.path} on {settings.device}: {error}"
            ) from error
        except BaseException:
            # Interrupted while loading: the child does not listen before it is done.
            await process.stop(grace_s=0.0)
            raise
        self._process = process
        return self._describe(model, ready, process.pid)

    async def generate(self, request: InferenceRequest) -> AsyncGenerator[TokenChunk, None]:
        """Answer one request; the last chunk has no tokens, but the text and the counts.

        Raises:
            BackendError: If the engine refuses the request or cannot finish it.
            EngineDied: If the engine's process is gone.
        """
        process = self._process
        if process is None:
            raise BackendError("openvino: the backend is not open")
        parts = tuple(Part(part.text, part.tokens, part.seed) for part in request.messages)
        ident, answers = process.submit(parts, request.max_output_tokens, request.ignore_eos)
        try:
            while not isinstance(answer := await answers.get(), Ended):
                if isinstance(answer, Died):
                    raise EngineDied(f"openvino: the engine's process {answer.text}")
                yield TokenChunk(tokens=answer.tokens, text=answer.text)
            yield self._last_chunk(answer)
        finally:
            process.release(ident)

    async def close(self) -> None:
        """End the engine's process."""
        process, self._process = self._process, None
        if process is not None:
            await process.stop()

    def _find_model(self) -> ModelFile:
        if self._options.model is None:
            return inspect(demo_model(_DEMO_WEIGHTS[self._options.precision]))
        return inspect(Path(self._options.model))

    def _settings(self, model: Path) -> EngineSettings:
        precision = self._options.precision
        arithmetic: str | None = precision if precision in ("f32", "bf16") else None
        if arithmetic is None and self._one_thread:
            arithmetic = "f32"  # the engine's own choice may be bf16: see _check_precision
        return EngineSettings(
            model=str(model),
            device=self._options.device,
            threads=self._threads,
            arithmetic=arithmetic,
            cache_gib=self._options.cache_gib,
            max_batch=self._options.max_batch,
            prefix_cache=self._options.prefix_cache,
            stream_text=self._options.stream_text,
        )

    def _describe(self, model: ModelFile, ready: Ready, pid: int) -> EngineInfo:
        demo = self._options.model is None
        quantised = model.weights not in ("f32", "f16", "bf16")
        return EngineInfo(
            model=_model_name(model.path, demo),
            engine=f"openvino-genai {importlib.metadata.version('openvino-genai')}",
            tokens_source="engine",
            mode=Mode(
                precision=model.weights if quantised else ready.arithmetic,
                kv_precision=ready.kv_precision,
                prefix_cache=self._options.prefix_cache,
            ),
            random_weights=demo,
            on_client_host=True,
            process_ids=(pid,),
            detail={
                "device": self._options.device,
                "device_name": ready.device_name,
                "threads": ready.threads or self._threads,
                "arithmetic": ready.arithmetic,
                "weights": model.weights,
                "model_file": model.path.name,
                "model_sha256": model.sha256,
                "model_bytes": model.size_bytes,
                "parameters": model.parameters,
                "vocabulary": ready.vocabulary,
                "cache_gib": self._options.cache_gib,
                "max_batch": self._options.max_batch,
            },
        )

    def _last_chunk(self, ended: Ended) -> TokenChunk:
        if ended.error is not None:
            raise BackendError(f"openvino: {ended.error}")
        usage = Usage(
            input_tokens=ended.input_tokens,
            output_tokens=ended.output_tokens,
            cached_tokens=None if self._options.prefix_cache else 0,
            finish_reason=ended.finish_reason,
        )
        return TokenChunk(tokens=0, text=ended.text, usage=usage)


def _model_name(path: Path, demo: bool) -> str:
    if demo:
        return DemoShape().name
    return path.resolve().name if path.is_dir() else path.stem


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_numbers(options: OpenVINOOptions, threads: int) -> None:
    numbers = {"threads": threads, "cache_gib": options.cache_gib, "max_batch": options.max_batch}
    for name, value in numbers.items():
        if value < 1:
            raise OptionError(f"openvino: {name}={value} must be at least 1")


def _check_precision(options: OpenVINOOptions, one_thread: bool) -> None:
    if options.precision == "bf16" and one_thread:
        # On some CPUs the engine divides by zero then: openvinotoolkit/openvino issue 33300.
        raise OptionError(
            "openvino: precision='bf16' with one thread can kill the engine (SIGFPE); "
            "take precision=f32 or int8, or threads=2 on at least two cores"
        )
    if options.model is not None and options.precision in ("int8", "int4"):
        raise OptionError(
            f"openvino: precision={options.precision!r} would change the weights of "
            f"{options.model}, which are used as they are; convert the model beforehand and leave "
            "precision=auto"
        )


def _check_model(model: str | None) -> None:
    if model is None:
        return
    path = Path(model)
    if not path.exists():
        raise UsageError(
            f"openvino: there is no model at {path}; model=… must name a .gguf file "
            "or a folder in OpenVINO's format"
        )
    if path.is_dir() and not (path / IR_MODEL).is_file():
        raise UsageError(
            f"openvino: the folder {path} has no {IR_MODEL}; model=… must name a "
            ".gguf file or a folder in OpenVINO's format"
        )
    if path.is_file() and path.suffix != ".gguf":
        # The engine goes by the name.
        raise UsageError(f"openvino: the name of the model {path} must end in .gguf")
