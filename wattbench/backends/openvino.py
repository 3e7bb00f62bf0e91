"""Backend ``openvino``: OpenVINO GenAI with continuous batching, in a process of its own.

Without a model it serves a small random one that it writes itself, so that a first measurement
needs no download. Texts are tokenised as they are, without a chat template, and decoding is
greedy.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wattbench.backends.demo_model import DemoShape, WeightType, cache_folder, demo_model
from wattbench.backends.engine_backend import EngineBackend, available_cores, missing, model_name
from wattbench.backends.engine_messages import Ready
from wattbench.backends.model_file import IR_MODEL, ModelFile, inspect
from wattbench.backends.openvino_worker import EngineSettings, Speculative, load, on_cpu
from wattbench.core.errors import BackendError, OptionError, UsageError
from wattbench.core.run import EngineInfo, Json, Mode
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
    device: str = option("CPU", "CPU, GPU, GPU.1, …: as OpenVINO names it. No NPU.")
    precision: Literal["auto", "f32", "bf16", "int8", "int4"] = option(
        "auto",
        "Demo model: auto is int8. Own model: f32 or bf16 set the arithmetic, auto leaves it.",
    )
    threads: int | None = option(None, "Threads of computation; by default all cores but one.")
    cache_gib: int = option(1, "Room for keys and values [GiB].")
    max_batch: int = option(64, "Most requests computed together.")
    prefix_cache: bool = option(False, "Compute equal beginnings of prompts only once.")
    kv_precision: Literal["auto", "bf16", "f16", "u8", "u4"] = option(
        "auto", "How keys and values are kept; auto leaves it to the engine."
    )
    speculative: Speculative = option(
        "none",
        "Guess tokens ahead: prompt-lookup finds them in the sequence, draft asks a second model.",
    )
    draft_model: str | None = option(
        None, "The second model, like model; for the demo model its own weights in int4."
    )
    assistant_tokens: int = option(5, "Tokens guessed for each step.")
    max_ngram: int = option(3, "Longest sequence that prompt-lookup searches for [tokens].")
    stream_text: bool = option(
        False, "Tell each step's text, not only the whole one at the end; costs a few per cent."
    )


class OpenVINOBackend(EngineBackend):
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
        super().__init__("openvino", cached_tokens=None if options.prefix_cache else 0)
        del context  # prompts carry their own seeds, and greedy decoding needs none
        self._options = options
        cores = available_cores()
        self._threads = options.threads if options.threads is not None else max(1, cores - 1)
        self._one_thread = on_cpu(options.device) and min(self._threads, cores) == 1
        _check_numbers(options, self._threads)
        _check_precision(options, self._one_thread)
        _check_speculation(options)
        _check_model(options.model, "model")
        _check_model(options.draft_model, "draft_model")

    @staticmethod
    def availability() -> str | None:
        """Why this backend cannot work here, None if it can."""
        return missing(_PACKAGES, _INSTALL)

    async def open(self) -> EngineInfo:
        """Load the model in a new process.

        Raises:
            BackendError: If the engine is not installed, or cannot load the model on the device.
        """
        if (why_not := self.availability()) is not None:
            raise BackendError(f"openvino: {why_not}")
        model = await asyncio.to_thread(self._find_model)
        draft = await asyncio.to_thread(self._find_draft)
        settings = self._settings(model.path, draft)
        what = f"{model.path} on {settings.device}"
        ready, pid = await self.start(load, settings, what)
        return self._describe(model, draft, ready, pid)

    def _find_model(self) -> ModelFile:
        if self._options.model is None:
            return inspect(demo_model(_DEMO_WEIGHTS[self._options.precision]))
        return inspect(Path(self._options.model))

    def _find_draft(self) -> ModelFile | None:
        if self._options.speculative != "draft":
            return None
        if self._options.draft_model is None:
            return inspect(demo_model("q4_0"))
        return inspect(Path(self._options.draft_model))

    def _settings(self, model: Path, draft: ModelFile | None = None) -> EngineSettings:
        precision = self._options.precision
        arithmetic: str | None = precision if precision in ("f32", "bf16") else None
        if arithmetic is None and self._one_thread:
            arithmetic = "f32"  # the engine's own choice may be bf16: see _check_precision
        return EngineSettings(
            model=str(model),
            device=self._options.device,
            threads=self._threads,
            arithmetic=arithmetic,
            kv_precision=_unless(self._options.kv_precision, "auto"),
            cache_gib=self._options.cache_gib,
            max_batch=self._options.max_batch,
            prefix_cache=self._options.prefix_cache,
            speculative=self._options.speculative,
            draft=str(draft.path.resolve()) if draft else None,
            draft_folder=str(_converted(draft).resolve()) if draft else None,
            assistant_tokens=self._options.assistant_tokens,
            max_ngram=self._options.max_ngram,
            stream_text=self._options.stream_text,
        )

    def _speculation(self, draft: ModelFile | None) -> str:
        """The mode with what makes it another one."""
        options = self._options
        if options.speculative == "none":
            return "none"
        if draft is None:
            return f"prompt-lookup of {options.assistant_tokens}, {options.max_ngram}-grams"
        name = _model_name(draft.path, options.draft_model is None)
        return f"draft of {options.assistant_tokens}, {name} {draft.weights}"

    def _describe(
        self, model: ModelFile, draft: ModelFile | None, ready: Ready, pid: int
    ) -> EngineInfo:
        demo = self._options.model is None
        quantised = model.weights not in ("f32", "f16", "bf16")
        return EngineInfo(
            model=_model_name(model.path, demo),
            engine=f"openvino-genai {importlib.metadata.version('openvino-genai')}",
            tokens_source="engine",
            mode=Mode(
                precision=model.weights if quantised else ready.arithmetic,
                kv_precision=ready.kv_precision,
                speculative=self._speculation(draft),
                prefix_cache=self._options.prefix_cache,
            ),
            random_weights=demo,
            on_client_host=True,
            process_ids=(pid,),
            detail=_draft_detail(draft)
            | {
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


def _model_name(path: Path, demo: bool) -> str:
    if demo:
        return DemoShape().name
    return model_name(path)


def _converted(draft: ModelFile) -> Path:
    """Where a draft is kept in OpenVINO's own format; one that changed has another place."""
    return cache_folder() / f"{draft.path.stem}-{draft.sha256[:16]}-ir"


def _draft_detail(draft: ModelFile | None) -> dict[str, Json]:
    return {"draft_sha256": draft.sha256, "draft_bytes": draft.size_bytes} if draft else {}


def _unless(value: str, nothing: str) -> str | None:
    return None if value == nothing else value


def _check_numbers(options: OpenVINOOptions, threads: int) -> None:
    numbers = {"threads": threads, "cache_gib": options.cache_gib, "max_batch": options.max_batch}
    numbers |= {"assistant_tokens": options.assistant_tokens, "max_ngram": options.max_ngram}
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
    if options.kv_precision == "bf16" and (options.precision == "f32" or one_thread):
        raise OptionError(
            "openvino: kv_precision='bf16' beside arithmetic in f32, which is also what one thread "
            "gets, is refused by the engine; take kv_precision=u8, or threads=2"
        )
    if options.model is not None and options.precision in ("int8", "int4"):
        raise OptionError(
            f"openvino: precision={options.precision!r} would change the weights of "
            f"{options.model}, which are used as they are; convert the model beforehand and leave "
            "precision=auto"
        )


def _check_speculation(options: OpenVINOOptions) -> None:
    if options.draft_model is not None and options.speculative != "draft":
        raise OptionError(
            f"openvino: draft_model={options.draft_model!r} is not used with "
            f"speculative={options.speculative}; add speculative=draft"
        )
    if options.speculative == "draft" and options.model is not None and not options.draft_model:
        raise OptionError(
            "openvino: speculative=draft beside model=… needs draft_model=…, a smaller model with "
            "the same tokenizer; without a second model take speculative=prompt-lookup"
        )


def _check_model(model: str | None, option: str) -> None:
    if model is None:
        return
    path = Path(model)
    wanted = f"{option}=… must name a .gguf file or a folder in OpenVINO's format"
    if not path.exists():
        raise UsageError(f"openvino: there is no model at {path}; {wanted}")
    if path.is_dir() and not (path / IR_MODEL).is_file():
        raise UsageError(f"openvino: the folder {path} has no {IR_MODEL}; {wanted}")
    if path.is_file() and path.suffix != ".gguf":
        # The engine goes by the name.
        raise UsageError(f"openvino: the name of the model {path} must end in .gguf")
