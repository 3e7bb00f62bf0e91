"""Backend ``transformers``: Hugging Face transformers on PyTorch, in a process of its own.

Static batching: whoever waits when the engine is free makes up the next batch, which is answered
by one ``generate()`` and must end before the next begins. Texts are tokenised as they are, without
a chat template, and decoding is greedy. Nothing is fetched from a hub.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wattbench.backends.demo_model import DemoShape
from wattbench.backends.engine_backend import EngineBackend, available_cores, missing, model_name
from wattbench.backends.engine_messages import Ready
from wattbench.backends.model_file import file_sha256
from wattbench.backends.transformers_worker import EngineSettings, load
from wattbench.core.errors import BackendError, OptionError, UsageError
from wattbench.core.run import EngineInfo, Json, Mode
from wattbench.plugins import PluginContext, option

_NAME = "transformers"
_PACKAGES = {"torch": "torch", "transformers": "transformers"}
_INSTALL = "pip install 'wattbench[torch]'"
_BATCH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersOptions:
    """Options of ``transformers``."""

    model: str | None = option(
        None, "A folder in Hugging Face's format; without one, a random demo model."
    )
    device: str = option("auto", "auto, cpu, cuda (also ROCm), cuda:1 or mps; auto: a GPU if any.")
    precision: Literal["auto", "f32", "bf16", "f16"] = option(
        "auto", "Of weights and arithmetic; auto: as the model's files say, f32 for the demo."
    )
    threads: int | None = option(None, "Threads on a CPU; by default all cores but one.")
    max_batch: int | None = option(
        None, "Most requests in one batch; by default 8, with prompt-lookup 1."
    )
    speculative: Literal["none", "prompt-lookup"] = option(
        "none", "Guess tokens ahead: prompt-lookup finds them in the sequence."
    )
    assistant_tokens: int = option(5, "Tokens guessed for each step.")
    max_ngram: int = option(3, "Longest sequence that prompt-lookup searches for [tokens].")
    stream_text: bool = option(
        False, "Tell each step's text, not only the whole one at the end; costs a few per cent."
    )


class TransformersBackend(EngineBackend):
    """Hugging Face transformers on this machine, one batch after the other.

    Args:
        options: What to serve and how.
        context: What the run gives to its plug-ins.

    Raises:
        OptionError: If an option cannot be meant, alone or beside the others.
        UsageError: If there is no model in the given folder.
    """

    Options = TransformersOptions

    def __init__(self, options: TransformersOptions, context: PluginContext) -> None:
        super().__init__(_NAME, cached_tokens=0)
        del context  # prompts carry their own seeds, and greedy decoding needs none
        self._options = options
        self._lookup = options.speculative == "prompt-lookup"
        self._batch = options.max_batch or (1 if self._lookup else _BATCH)
        self._threads = options.threads or max(1, available_cores() - 1)
        _check(options, self._lookup)

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
            raise BackendError(f"{_NAME}: {why_not}")
        sha256 = await asyncio.to_thread(_model_sha256, self._options.model)
        settings = self._settings()
        what = f"{settings.model or 'the demo model'} on {settings.device}"
        ready, pid = await self.start(load, settings, what)
        return self._describe(ready, pid, sha256)

    def _settings(self) -> EngineSettings:
        options = self._options
        return EngineSettings(
            model=options.model,
            shape=DemoShape(),
            device=options.device,
            threads=self._threads,
            precision=None if options.precision == "auto" else options.precision,
            max_batch=self._batch,
            assistant_tokens=options.assistant_tokens if self._lookup else 0,
            stream_text=options.stream_text,
            max_ngram=options.max_ngram,
        )

    def _describe(self, ready: Ready, pid: int, sha256: str | None) -> EngineInfo:
        options = self._options
        guess = f"prompt-lookup of {options.assistant_tokens}, {options.max_ngram}-grams"
        versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
        detail: dict[str, Json] = {
            "device": options.device,
            "device_name": ready.device_name,
            "threads": ready.threads,
            "arithmetic": ready.arithmetic,
            "model_sha256": sha256,
            "parameters": ready.parameters,
            "vocabulary": ready.vocabulary,
            "max_batch": self._batch,
            "batching": "static",
        }
        return EngineInfo(
            model=model_name(Path(options.model)) if options.model else DemoShape().name,
            engine=f"transformers {versions['transformers']}, torch {versions['torch']}",
            tokens_source="engine",
            mode=Mode(
                precision=ready.arithmetic,
                kv_precision=ready.kv_precision,
                speculative=guess if self._lookup else "none",
                prefix_cache=False,
            ),
            random_weights=options.model is None,
            on_client_host=True,
            process_ids=(pid,),
            detail=detail,
        )


def _model_sha256(folder: str | None) -> str | None:
    """SHA-256 of the weights of a model of the user's own."""
    if folder is None:
        return None
    files = sorted([*Path(folder).glob("*.safetensors"), *Path(folder).glob("*.bin")])
    try:
        return file_sha256(*files) if files else None
    except OSError as error:
        raise BackendError(
            f"{_NAME}: the model {folder} cannot be read: {error.strerror or error}"
        ) from error


def _check(options: TransformersOptions, lookup: bool) -> None:
    for name in ("threads", "max_batch", "assistant_tokens", "max_ngram"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise OptionError(f"{_NAME}: {name}={value} must be at least 1")
    if lookup and (options.max_batch or 1) > 1:
        raise OptionError(
            f"{_NAME}: max_batch={options.max_batch} beside speculative=prompt-lookup: the engine "
            f"guesses for one request at a time; leave max_batch out"
        )
    if options.model is None:
        return
    folder = Path(options.model)
    if not (folder / "config.json").is_file():
        what = "has no config.json" if folder.is_dir() else "is no folder"
        raise UsageError(
            f"{_NAME}: {folder} {what}; model=… must name a folder in Hugging Face's format, with "
            f"config.json, weights and tokenizer; nothing is fetched from a hub"
        )
