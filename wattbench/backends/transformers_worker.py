"""Hugging Face transformers as an engine of the child process: one ``generate()`` per batch.

This module imports the engine only in the child. PyTorch is held as ``Any``, so that types are
checked alike with and without it.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass, field
from typing import Any

from wattbench.backends.demo_model import DemoShape, train_tokenizer
from wattbench.backends.engine_child import Tell, reason_in_one_line
from wattbench.backends.engine_messages import Ended, Part, Piece, Ready, Step, Submit
from wattbench.backends.engine_texts import Told, next_pieces
from wattbench.core.errors import BackendError, DeviceMissing

_LOAD_ADVICE = (
    "check that the folder has config.json, safetensors and a tokenizer of an architecture that "
    "this version of transformers knows, and that the device has memory for it"
)
_DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
_NAMES = {name: short for short, name in _DTYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What the child needs to load the engine.

    Attributes:
        model: A folder in the format of Hugging Face; None for a random model.
        shape: Size of the random model.
        device: PyTorch's name of the device, or ``auto``.
        threads: Threads of computation; only a CPU takes them.
        precision: ``f32``, ``bf16`` or ``f16``; None for what the model's files say.
        max_batch: Most requests in one batch.
        assistant_tokens: Tokens guessed by prompt lookup for each step; 0 without.
        max_ngram: Longest sequence that it searches for [tokens].
        stream_text: Whether the text of each step is told, not only that of the whole answer.
    """

    model: str | None
    shape: DemoShape
    device: str
    threads: int
    precision: str | None
    max_batch: int
    assistant_tokens: int
    max_ngram: int
    stream_text: bool = False


def load(settings: EngineSettings, log: int) -> _Engine:
    """Load the engine; what it prints needs no reading.

    Raises:
        BackendError: If the engine cannot load the model, in one line.
    """
    del log
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    try:
        return _Engine(settings)
    except BackendError:
        raise
    except Exception as error:  # a model's own code runs here and may raise anything
        raise BackendError(f"{reason_in_one_line(error)}; {_LOAD_ADVICE}") from error


@dataclass(slots=True)
class _Row:
    """A request that waits, or has a row of the batch."""

    ident: int
    ids: list[int]
    max_output_tokens: int
    ignore_eos: bool
    output_ids: list[int] = field(default_factory=list)
    told: Told = field(default_factory=Told)
    finish_reason: str | None = None
    cancelled: bool = False

    @property
    def done(self) -> bool:
        return self.cancelled or self.finish_reason is not None

    def take(self, ids: list[int], eos: set[int]) -> int:
        """Take what a step gave, up to the answer's end; how many tokens that was."""
        before = len(self.output_ids)
        for ident in ids:
            if self.done:
                break
            self.output_ids.append(ident)
            if ident in eos and not self.ignore_eos:
                self.finish_reason = "stop"
            elif len(self.output_ids) == self.max_output_tokens:
                self.finish_reason = "length"
        return len(self.output_ids) - before


class _Engine:
    """A model of transformers, with whoever waits for it."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self.torch: Any = importlib.import_module("torch")
        self._library: Any = importlib.import_module("transformers")
        self.device = _device(self.torch, settings.device)
        self.torch.set_num_threads(settings.threads)
        self._model, self._tokenizer = self._load_model()
        self._model = self._model.to(self.device).eval()
        self._plain_ids = self._find_plain_ids()
        self._waiting: list[_Row] = []
        self._batch: list[_Row] = []
        eos = self._model.generation_config.eos_token_id
        self.eos = set(eos if isinstance(eos, list) else [eos]) - {None}
        dtype = str(self._model.dtype).removeprefix("torch.")
        self.ready = Ready(
            device_name=_device_name(self.torch, self.device),
            vocabulary=int(self._model.config.get_text_config().vocab_size),
            arithmetic=_NAMES.get(dtype, dtype),
            kv_precision=_NAMES.get(dtype, dtype),
            threads=self.torch.get_num_threads() if self.device.type == "cpu" else None,
            parameters=sum(part.numel() for part in self._model.parameters()),
        )

    def _load_model(self) -> tuple[Any, Any]:
        settings, library = self._settings, self._library
        dtype = getattr(self.torch, _DTYPES[settings.precision]) if settings.precision else "auto"
        if settings.model is None:
            model, tokenizer = _demo(self.torch, library, settings.shape)
            return model.to(self.torch.float32 if dtype == "auto" else dtype), tokenizer
        only = {"local_files_only": True}
        tokenizer = library.AutoTokenizer.from_pretrained(settings.model, **only)
        model = library.AutoModelForCausalLM.from_pretrained(settings.model, dtype=dtype, **only)
        return model, tokenizer

    def _find_plain_ids(self) -> list[int]:
        """Ids of tokens with a text of their own: neither special nor part of a character."""
        special = set(self._tokenizer.all_special_ids)
        count = min(len(self._tokenizer), self._model.config.get_text_config().vocab_size)
        texts = self._tokenizer.batch_decode([[ident] for ident in range(count)])
        return [
            ident
            for ident, text in enumerate(texts)
            if text and ident not in special and "\N{REPLACEMENT CHARACTER}" not in text
        ]

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._waiting)

    def submit(self, message: Submit) -> Ended | None:
        """Take a request; returns its end if it cannot be answered."""
        ids = self._prompt(message.parts)
        most = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        refusal = None
        if not ids or message.max_output_tokens < 1:
            refusal = "a prompt and an answer need one token at least"
        elif most is not None and len(ids) + message.max_output_tokens > most:
            refusal = (
                f"a prompt of {len(ids)} and an answer of {message.max_output_tokens} tokens "
                f"exceed the model's {most}"
            )
        if refusal is not None:
            return Ended(len(ids), 0, error=f"the engine refused it: {refusal}")
        self._waiting.append(
            _Row(message.ident, ids, message.max_output_tokens, message.ignore_eos)
        )
        return None

    def _prompt(self, parts: tuple[Part, ...]) -> list[int]:
        import numpy as np

        ids: list[int] = []
        for number, part in enumerate(parts):
            if part.text is None:
                drawn = np.random.default_rng(part.seed).integers(
                    len(self._plain_ids), size=part.tokens
                )
                ids += [self._plain_ids[index] for index in drawn]
            elif part.text:
                ids += self._tokenizer(part.text, add_special_tokens=number == 0).input_ids
        return ids

    def cancel(self, ident: int) -> None:
        """Forget a request; in a batch its row is computed on until all are done."""
        self._waiting = [row for row in self._waiting if row.ident != ident]
        for row in self._batch:
            if row.ident == ident:
                row.cancelled = True

    def step(self, tell: Tell) -> None:
        """Answer the requests that have waited longest, together."""
        kind = self._waiting[0].ignore_eos
        chosen = [row for row in self._waiting if row.ignore_eos == kind]
        self._batch = chosen[: self._settings.max_batch]
        self._waiting = [row for row in self._waiting if row not in self._batch]
        error = "the engine ended it early"
        try:
            self._generate(tell)
        except Exception as caught:  # likewise; the batch fails and the engine goes on
            error = f"the engine failed: {reason_in_one_line(caught)}"
        left = {
            row.ident: Ended(len(row.ids), len(row.output_ids), error=error)
            for row in self._batch
            if not row.done
        }
        self._batch = []
        tell(Step({}, left))

    def _generate(self, tell: Tell) -> None:
        rows, torch = self._batch, self.torch
        longest = max(len(row.ids) for row in rows)
        # Decoding goes on at the right end, so shorter prompts are padded at the left.
        pads = [longest - len(row.ids) for row in rows]
        ids = [[0] * pad + row.ids for pad, row in zip(pads, rows, strict=True)]
        mask = [[0] * pad + [1] * len(row.ids) for pad, row in zip(pads, rows, strict=True)]
        tokens = max(row.max_output_tokens for row in rows)
        config: dict[str, Any] = {
            "do_sample": False,
            "max_new_tokens": tokens,
            "pad_token_id": 0,
            "eos_token_id": sorted(self.eos) or None,
        }
        if rows[0].ignore_eos:
            config["min_new_tokens"] = tokens
        if self._settings.assistant_tokens:
            config["prompt_lookup_num_tokens"] = self._settings.assistant_tokens
            config["max_matching_ngram_size"] = self._settings.max_ngram
        with torch.inference_mode():
            self._model.generate(
                torch.tensor(ids, device=self.device),
                attention_mask=torch.tensor(mask, device=self.device),
                generation_config=self._library.GenerationConfig(**config),
                streamer=_Stream(self, rows, tell),
                stopping_criteria=[_Done(self, rows)],
            )

    def pieces(self, taken: list[tuple[_Row, int]]) -> dict[int, Piece]:
        """What a step added to each row."""
        texts: list[str | None] = [None] * len(taken)
        if self._settings.stream_text and taken:
            answers = [(row.told, row.output_ids, row.done) for row, _ in taken]
            texts = [*next_pieces(answers, self._decode)]
        return {
            row.ident: Piece(tokens, text) for (row, tokens), text in zip(taken, texts, strict=True)
        }

    def _decode(self, sequences: list[list[int]]) -> list[str]:
        texts: list[str] = self._tokenizer.batch_decode(sequences, skip_special_tokens=True)
        return texts

    def end(self, row: _Row) -> Ended:
        """The end of a row that has one; on a GPU nothing of it is still under way."""
        if self.device.type in ("cuda", "mps"):
            getattr(self.torch, self.device.type).synchronize()
        # What was streamed piece by piece is not told again.
        text = "" if self._settings.stream_text else self._tokenizer.decode(row.output_ids)
        counts = len(row.ids), len(row.output_ids)
        return Ended(*counts, text=text, finish_reason=row.finish_reason)


class _Stream:
    """Takes tokens from ``generate()`` as it makes them: one per row, several if guessed."""

    def __init__(self, engine: _Engine, rows: list[_Row], tell: Tell) -> None:
        self._engine, self._rows, self._tell = engine, rows, tell
        self._prompts = True

    def put(self, value: Any) -> None:
        """Called with the prompts, then with each step's tokens."""
        if self._prompts:
            self._prompts = False
            return
        taken: list[tuple[_Row, int]] = []
        ended: dict[int, Ended] = {}
        for row, ids in zip(self._rows, value.reshape(len(self._rows), -1).tolist(), strict=True):
            if tokens := row.take(ids, self._engine.eos):
                taken.append((row, tokens))
                if row.done:
                    ended[row.ident] = self._engine.end(row)
        self._tell(Step(self._engine.pieces(taken), ended))

    def end(self) -> None:
        """Called after the last step."""


class _Done:
    """Tells ``generate()`` after each step which rows need no more."""

    def __init__(self, engine: _Engine, rows: list[_Row]) -> None:
        self._engine, self._rows = engine, rows

    def __call__(self, input_ids: Any, scores: Any, **more: Any) -> Any:
        done = [row.done for row in self._rows]
        return self._engine.torch.tensor(done, device=self._engine.device)


def _device(torch: Any, wanted: str) -> Any:
    """The device by its name.

    Raises:
        DeviceMissing: With the devices that are there.
    """
    there = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        there.append("mps")
    there.append("cpu")
    if wanted == "auto":
        return torch.device(there[0])
    if wanted == "cuda" and "cuda:0" in there:
        return torch.device("cuda:0")
    if wanted not in there:
        raise DeviceMissing(
            f"there is no device {wanted!r}; available: {', '.join(there)}; take one of these, or "
            f"install a build of torch for the other (this one is {torch.__version__})"
        )
    return torch.device(wanted)


def _device_name(torch: Any, device: Any) -> str:
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else str(device)


def _demo(torch: Any, library: Any, shape: DemoShape) -> tuple[Any, Any]:
    """A Llama with random weights, and the tokenizer of the other demo model."""
    tokenizers: Any = importlib.import_module("tokenizers")
    words, merges = train_tokenizer(shape.vocabulary, seed=0)
    vocabulary = {word: number for number, word in enumerate(words)}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=pairs))
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    special = dict(zip(("unk_token", "bos_token", "eos_token"), words, strict=False))
    tokenizer = library.PreTrainedTokenizerFast(tokenizer_object=bpe, **special)
    config = library.LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    return library.LlamaForCausalLM(config), tokenizer
