"""OpenVINO GenAI's pipeline with continuous batching, as an engine of the child process.

This module imports the engine only in the child.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wattbench.backends.engine_child import Tell, reason_in_one_line
from wattbench.backends.engine_messages import Ended, Part, Piece, Ready, Step, Submit
from wattbench.backends.engine_texts import Told, next_pieces
from wattbench.backends.model_file import IR_MODEL
from wattbench.core.errors import BackendError, DeviceMissing

Speculative = Literal["none", "prompt-lookup", "draft"]

_LOAD_ADVICE = (
    "check that the device has memory for the model and cache_gib, and that the engine can read a "
    ".gguf file's architecture (llama, qwen2, qwen3) and weights (f16, q8_0, q4_0, q4_1, q4_k)"
)
_DRAFT_ADVICE = "; a draft needs the tokenizer of the model that it drafts for"
_TEXT_CHARACTERS = 2000  # of at most four bytes, and a token has one at least
_VIRTUAL_DEVICES = ("AUTO", "MULTI", "HETERO")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What the child needs to load the engine.

    Attributes:
        model: Path of a GGUF file or of a folder in OpenVINO's own format.
        device: OpenVINO's name of the device.
        threads: Threads of computation; only a CPU takes them.
        arithmetic: Precision of computation to ask for, None for the engine's choice.
        kv_precision: Precision of keys and values to ask for, None for the engine's choice.
        cache_gib: Room for keys and values [GiB].
        cache_blocks: The same in the engine's blocks instead; 0 to go by ``cache_gib``.
        max_batch: Most requests computed together.
        prefix_cache: Whether equal beginnings of prompts are computed once.
        speculative: Where guesses at the next tokens come from.
        draft: Path of the model that guesses, like ``model``; None without one.
        draft_folder: Where a draft that is a GGUF file is kept in OpenVINO's own format.
        assistant_tokens: Tokens guessed for each step of the model.
        max_ngram: Longest sequence that prompt lookup searches for [tokens].
        stream_text: Whether the text of each step is told, not only that of the whole answer.
    """

    model: str
    device: str
    threads: int
    arithmetic: str | None
    kv_precision: str | None = None
    cache_gib: int
    cache_blocks: int = 0
    max_batch: int
    prefix_cache: bool
    speculative: Speculative = "none"
    draft: str | None = None
    draft_folder: str | None = None
    assistant_tokens: int = 5
    max_ngram: int = 3
    stream_text: bool = False


def on_cpu(device: str) -> bool:
    """Whether OpenVINO's name of a device means the CPU alone."""
    return device.partition(".")[0] == "CPU"


def load(settings: EngineSettings, log: int) -> _Engine:
    """Load the engine.

    Args:
        settings: What to load.
        log: Descriptor of the file that the engine prints to.

    Raises:
        BackendError: If the engine cannot load it, in one line.
    """
    try:
        return _Engine(settings, log)
    except BackendError:
        raise
    except Exception as error:  # native code: any of its errors must reach the parent as a line
        advice = _LOAD_ADVICE + (_DRAFT_ADVICE if settings.draft else "")
        raise BackendError(f"{reason_in_one_line(error)}; {advice}") from error


@dataclass(slots=True)
class _Running:
    """A request in the engine; without its handle the engine forgets it."""

    handle: Any
    input_tokens: int
    max_output_tokens: int
    output_ids: list[int] = field(default_factory=list)
    told: Told = field(default_factory=Told)
    finish_reason: str | None = None


class _Engine:
    """OpenVINO GenAI's pipeline with continuous batching."""

    def __init__(self, settings: EngineSettings, log: int) -> None:
        # Importing openvino reports its use over the network, through this module alone; with
        # the module barred it falls back to a stub of its own.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        # The only place where the engine tells what it made of its settings is its own log.
        os.environ["OPENVINO_LOG_LEVEL"] = "3"
        import openvino
        import openvino_genai

        self._openvino, self._genai = openvino, openvino_genai
        self._settings = settings
        core = openvino.Core()
        _check_device(settings.device, core.available_devices)
        self._pipeline = self._load()
        self._tokenizer = self._pipeline.get_tokenizer()
        self._vocabulary = len(self._tokenizer.get_vocab())
        self._plain_ids = self._find_plain_ids()
        self._running: dict[int, _Running] = {}
        told = _told(os.pread(log, os.fstat(log).st_size, 0).decode(errors="replace"))
        threads = told.get("INFERENCE_NUM_THREADS")
        self.ready = Ready(
            device_name=_device_name(core, settings.device),
            vocabulary=self._vocabulary,
            arithmetic=told.get("INFERENCE_PRECISION_HINT"),
            kv_precision=told.get("KV_CACHE_PRECISION"),
            threads=int(threads) if threads else None,
        )

    def _load(self) -> Any:
        settings = self._settings
        scheduler = self._genai.SchedulerConfig()
        if settings.cache_blocks:
            scheduler.num_kv_blocks = settings.cache_blocks
        else:
            scheduler.cache_size = settings.cache_gib
        scheduler.max_num_seqs = settings.max_batch
        scheduler.dynamic_split_fuse = True
        scheduler.enable_prefix_caching = settings.prefix_cache
        # The tokenizer always computes on the CPU, by default on all cores.
        threads = {"INFERENCE_NUM_THREADS": settings.threads}
        properties: dict[str, Any] = dict(threads) if on_cpu(settings.device) else {}
        if settings.arithmetic:
            properties["INFERENCE_PRECISION_HINT"] = settings.arithmetic
        if settings.kv_precision:
            properties["KV_CACHE_PRECISION"] = settings.kv_precision
        guesses: dict[str, Any] = {}
        if settings.speculative == "prompt-lookup":
            guesses["prompt_lookup"] = True
        elif settings.speculative == "draft":
            draft = self._draft(Path(settings.draft or ""), Path(settings.draft_folder or ""))
            guesses["draft_model"] = self._genai.draft_model(draft, settings.device, **properties)
        return self._genai.ContinuousBatchingPipeline(
            settings.model, scheduler, settings.device, properties | guesses, threads
        )

    def _draft(self, path: Path, folder: Path) -> str:
        """The draft in OpenVINO's own format, the only one that the engine takes for a draft."""
        if path.is_dir():
            return str(path)
        if not (folder / IR_MODEL).is_file():
            try:
                self._convert(path, folder)
            except OSError as error:
                raise BackendError(
                    f"the draft {path} cannot be converted into {folder}: "
                    f"{error.strerror or error}; point WATTBENCH_CACHE to a writable folder"
                ) from error
        return str(folder)

    def _convert(self, path: Path, folder: Path) -> None:
        """Write a GGUF file's model in OpenVINO's own format."""
        properties = {
            "INFERENCE_NUM_THREADS": self._settings.threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=folder.parent) as scratch:
            # The engine writes beside the file that it is given.
            given = Path(scratch, "model.gguf")
            given.symlink_to(path.resolve())
            self._genai.LLMPipeline(str(given), "CPU", enable_save_ov_model=True, **properties)
            made = [file for file in Path(scratch).iterdir() if file != given]
            # The description comes last: with it the folder counts as whole.
            for file in sorted(made, key=lambda file: file.name == IR_MODEL):
                file.replace(folder / file.name)

    def _find_plain_ids(self) -> Any:
        """Ids of tokens with a text of their own: neither special nor part of a character."""
        import numpy as np

        texts = self._tokenizer.decode([[ident] for ident in range(self._vocabulary)])
        return np.array([ident for ident, text in enumerate(texts) if text], np.int64)

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._pipeline.has_non_finished_requests())

    def submit(self, message: Submit) -> Ended | None:
        """Take a request; returns its end if the engine refuses it."""
        ids: Any = None
        try:
            ids = self._prompt(message.parts)
            handle = self._pipeline.add_request(
                message.ident, self._openvino.Tensor(ids), self._generation(message)
            )
        except Exception as error:  # likewise; one bad prompt must not end the others
            tokens = 0 if ids is None else int(ids.size)
            return Ended(tokens, 0, error=f"the engine refused it: {reason_in_one_line(error)}")
        self._running[message.ident] = _Running(handle, int(ids.size), message.max_output_tokens)
        return None

    def _generation(self, message: Submit) -> Any:
        """Greedy decoding: what the model's own configuration says of sampling is left out."""
        of_model, config = self._pipeline.get_config(), self._genai.GenerationConfig()
        config.max_new_tokens = message.max_output_tokens
        config.ignore_eos = message.ignore_eos
        config.do_sample = False
        config.apply_chat_template = False
        config.eos_token_id = of_model.eos_token_id
        config.stop_token_ids = of_model.stop_token_ids
        if self._settings.speculative != "none":
            config.num_assistant_tokens = self._settings.assistant_tokens
        if self._settings.speculative == "prompt-lookup":
            config.max_ngram_size = self._settings.max_ngram
        return config

    def _prompt(self, parts: tuple[Part, ...]) -> Any:
        """Token ids of the parts in a row, shape (1, n)."""
        import numpy as np

        pieces = [np.empty(0, np.int64)]
        for number, part in enumerate(parts):
            if part.text is None:
                drawn = np.random.default_rng(part.seed).integers(
                    len(self._plain_ids), size=part.tokens
                )
                pieces.append(self._plain_ids[drawn])
            elif part.text:
                for place, text in enumerate(short_texts(part.text)):
                    first = number == 0 and place == 0
                    encoded = self._tokenizer.encode(text, add_special_tokens=first)
                    pieces.append(np.array(encoded.input_ids.data, np.int64).reshape(-1))
        return np.concatenate(pieces).reshape(1, -1)

    def cancel(self, ident: int) -> None:
        """Forget a request; one that has just ended is gone already."""
        running = self._running.pop(ident, None)
        if running is not None:
            running.handle.cancel()

    def step(self, tell: Tell) -> None:
        """Compute one step of everything that runs; with guesses it may give several tokens."""
        self._pipeline.step()
        pieces: dict[int, Piece] = {}
        ended: dict[int, Ended] = {}
        for ident, running in self._running.items():
            before = len(running.output_ids)
            while running.handle.can_read():
                for output in running.handle.read().values():
                    running.output_ids += output.generated_ids
                    running.finish_reason = output.finish_reason.name.lower()
            if len(running.output_ids) > before:
                pieces[ident] = Piece(len(running.output_ids) - before)
            if running.handle.get_status() != self._genai.GenerationStatus.RUNNING:
                ended[ident] = self._end(running)
        if self._settings.stream_text and pieces:
            pieces = self._with_texts(pieces, ended)
        for ident in ended:
            del self._running[ident]
        tell(Step(pieces, ended))

    def _with_texts(
        self, pieces: Mapping[int, Piece], ended: Mapping[int, Ended]
    ) -> dict[int, Piece]:
        rows = [self._running[ident] for ident in pieces]
        answers = [
            (row.told, row.output_ids, ident in ended)
            for ident, row in zip(pieces, rows, strict=True)
        ]
        texts = next_pieces(answers, self._tokenizer.decode)
        return {
            ident: Piece(piece.tokens, text)
            for (ident, piece), text in zip(pieces.items(), texts, strict=True)
        }

    def _end(self, running: _Running) -> Ended:
        counts = running.input_tokens, len(running.output_ids)
        if running.handle.get_status() != self._genai.GenerationStatus.FINISHED:
            # The engine's only sign of a full cache is that it stops without an error.
            return Ended(
                *counts,
                error=f"the engine gave up after {counts[1]} of {running.max_output_tokens} tokens "
                f"on a prompt of {counts[0]}: they do not fit its KV cache; raise cache_gib",
            )
        # What was streamed piece by piece is not told again.
        text = "" if self._settings.stream_text else self._tokenizer.decode(running.output_ids)
        return Ended(*counts, text=text, finish_reason=running.finish_reason)


def short_texts(text: str) -> Iterator[str]:
    """The text in pieces that the tokenizer takes whole: it drops what is beyond 8192 tokens.

    Cut before a space, where tokenizers cut too.
    """
    while len(text) > _TEXT_CHARACTERS:
        end = text.rfind(" ", 1, _TEXT_CHARACTERS)
        end = end if end > 0 else _TEXT_CHARACTERS
        yield text[:end]
        text = text[end:]
    yield text


def _check_device(device: str, available: list[str]) -> None:
    """Refuse a device that is not there; the engine's own words for that rarely name it.

    Raises:
        DeviceMissing: With the devices that are there.
        BackendError: If the engine has no continuous batching for it.
    """
    kinds = {name.partition(".")[0] for name in available}
    kind = re.split(r"[.:]", device)[0]
    if device not in available and kind not in (*kinds, *_VIRTUAL_DEVICES):
        raise DeviceMissing(
            f"there is no device {device!r}; available: {', '.join(available)}; take one of these "
            f"or install the driver of the other"
        )
    if kind == "NPU":
        raise BackendError(
            "the engine batches continuously on CPU and GPU only; take device=CPU or GPU, or "
            "serve the NPU with a server that speaks the OpenAI API and measure it by "
            "--backend openai"
        )


def _device_name(core: Any, device: str) -> str:
    try:
        return str(core.get_property(device, "FULL_DEVICE_NAME"))
    except RuntimeError:  # a device made of several has no name of its own
        return device


def _told(log: str) -> dict[str, str]:
    """Properties of the compiled model from the engine's log; empty if it has none."""
    _, found, section = log.rpartition("Model: LLM")
    return dict(re.findall(r"^\s+([A-Z_]+): (\S+)$", section, re.MULTILINE)) if found else {}
