"""The child process that holds the OpenVINO engine.

The engine keeps the interpreter's lock while it computes; in a process of its own it cannot hold
up the event loop that stamps tokens and samples power. This module imports the engine only in
the child.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wattbench.backends.openvino_messages import (
    Cancel,
    Close,
    Ended,
    EngineSettings,
    Failed,
    Inbox,
    Part,
    Piece,
    Ready,
    Step,
    Submit,
    on_cpu,
    packed,
)

_READ_BYTES = 1 << 16
_REASON_CHARACTERS = 400
_LOAD_ADVICE = (
    "check that the device has memory for the model and cache_gib, and that the engine can read a "
    ".gguf file's architecture (llama, qwen2, qwen3) and weights (f16, q8_0, q4_0, q4_1, q4_k)"
)
_HALF_CHARACTER = "\ufffd"
_VIRTUAL_DEVICES = ("AUTO", "MULTI", "HETERO")


def child_main(link: socket.socket, log_path: str, settings: EngineSettings) -> None:
    """Load the engine and serve it until the parent closes the stream or is gone.

    Args:
        link: Stream to the parent.
        log_path: File that takes everything the engine prints.
        settings: What to load.
    """
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log = os.open(log_path, os.O_RDWR | os.O_APPEND)
    Path(log_path).unlink()
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        engine = _Engine(settings, log)
    except _DeviceMissing as error:
        link.sendall(packed(Failed(str(error))))
        return
    except Exception as error:
        link.sendall(packed(Failed(f"{reason_in_one_line(error)}; {_LOAD_ADVICE}")))
        return
    # What was printed while loading is no cause of a later failure.
    os.ftruncate(log, 0)
    try:
        link.sendall(packed(engine.ready))
        _serve(link, engine)
    except ConnectionError:
        return


def _serve(link: socket.socket, engine: _Engine) -> None:
    """Step while there is work, sleep on the stream while there is none."""
    inbox = Inbox()
    while True:
        while not engine.busy or select.select([link], [], [], 0)[0]:
            data = link.recv(_READ_BYTES)
            if not data:
                return
            refused: dict[int, Ended] = {}
            for message in inbox.feed(data):
                if isinstance(message, Close):
                    return
                if isinstance(message, Cancel):
                    engine.cancel(message.ident)
                elif ended := engine.submit(message):
                    refused[message.ident] = ended
            if refused:
                link.sendall(packed(Step({}, refused)))
        step = engine.step()
        if step.pieces or step.ended:
            link.sendall(packed(step))


def reason_in_one_line(error: BaseException) -> str:
    """An engine's message without its source positions and line breaks."""
    text = re.sub(r"(Exception from|Check '.*?' failed at) \S+:\d+:", " ", str(error))
    return " ".join(text.split())[:_REASON_CHARACTERS] or type(error).__name__


class _DeviceMissing(Exception):
    """The wanted device is not on this machine."""


@dataclass(slots=True)
class _Running:
    """A request in the engine; without its handle the engine forgets it."""

    handle: Any
    input_tokens: int
    max_output_tokens: int
    output_ids: list[int] = field(default_factory=list)
    told: int = 0
    """Tokens whose text is out."""
    context: int = 0
    """First token that the next piece is decoded with: spaces depend on what is before."""
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
        return self._genai.ContinuousBatchingPipeline(
            settings.model, scheduler, settings.device, properties, threads
        )

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
        except Exception as error:
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
                encoded = self._tokenizer.encode(part.text, add_special_tokens=number == 0)
                pieces.append(np.array(encoded.input_ids.data, np.int64).reshape(-1))
        return np.concatenate(pieces).reshape(1, -1)

    def cancel(self, ident: int) -> None:
        """Forget a request; one that has just ended is gone already."""
        running = self._running.pop(ident, None)
        if running is not None:
            running.handle.cancel()

    def step(self) -> Step:
        """Compute one step of everything that runs."""
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
        if self._settings.stream_text:
            pieces = self._with_texts(pieces, ended)
        for ident in ended:
            del self._running[ident]
        return Step(pieces, ended)

    def _with_texts(self, pieces: dict[int, Piece], ended: dict[int, Ended]) -> dict[int, Piece]:
        """The pieces with their texts, all decoded in one call."""
        if not pieces:
            return pieces
        live = [self._running[ident] for ident in pieces]
        spans = [each.output_ids[each.context : end] for each in live for end in (each.told, None)]
        texts = self._tokenizer.decode(spans)
        told: dict[int, Piece] = {}
        for (ident, piece), running, before, now in zip(
            pieces.items(), live, texts[::2], texts[1::2], strict=True
        ):
            text = now[len(before) :]
            if text.endswith(_HALF_CHARACTER) and ident not in ended:
                text = ""  # the bytes of a character are split over tokens: wait for the rest
            else:
                running.context, running.told = running.told, len(running.output_ids)
            told[ident] = Piece(piece.tokens, text)
        return told

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


def _check_device(device: str, available: list[str]) -> None:
    """Refuse a device that is not there; the engine's own words for that rarely name it.

    Raises:
        _DeviceMissing: With the devices that are there.
    """
    kinds = {name.partition(".")[0] for name in available}
    kind = re.split(r"[.:]", device)[0]
    if device not in available and kind not in (*kinds, *_VIRTUAL_DEVICES):
        raise _DeviceMissing(f"there is no device {device!r}; available: {', '.join(available)}")


def _device_name(core: Any, device: str) -> str:
    try:
        return str(core.get_property(device, "FULL_DEVICE_NAME"))
    except RuntimeError:  # a device made of several has no name of its own
        return device


def _told(log: str) -> dict[str, str]:
    """Properties of the compiled model from the engine's log; empty if it has none."""
    _, found, section = log.rpartition("Model: LLM")
    return dict(re.findall(r"^\s+([A-Z_]+): (\S+)$", section, re.MULTILINE)) if found else {}
