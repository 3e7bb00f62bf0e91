"""A language model that needs no download: Llama architecture, random weights, own tokenizer.

Its answers mean nothing, but a token costs as much as in a trained model of the same shape. The
weights come from the raw output of a seeded generator through exact arithmetic, so that the file
is the same, byte for byte, wherever it is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wattbench.backends.model_file import file_sha256
from wattbench.core.errors import BackendError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WeightType = Literal["f16", "q8_0", "q4_0"]

_FORMAT = 1  # part of the file's name: raise it when the same arguments give another file
_SPECIAL = ("<unk>", "<s>", "</s>")
_WEIGHT_LIMIT = 0.035  # uniform within ± this: standard deviation 0.02, as usual before training


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoShape:
    """Size of the model; the default has 46 million parameters.

    Attributes:
        layers: Transformer blocks.
        hidden: Width of the residual stream; a multiple of 32 and of ``heads``.
        heads: Attention heads.
        kv_heads: Key and value heads; divides ``heads``.
        feed_forward: Inner width of the feed-forward part; a multiple of 32.
        vocabulary: Tokens, special ones included; at least 260.
        context: Longest sequence that the file announces [tokens].
    """

    layers: int = 12
    hidden: int = 512
    heads: int = 8
    kv_heads: int = 4
    feed_forward: int = 1536
    vocabulary: int = 8000
    context: int = 32768

    def matrices(self) -> Iterator[tuple[str, int, int]]:
        """Name, rows and columns of every weight matrix, in the order of the file."""
        kv_width = self.hidden // self.heads * self.kv_heads
        yield "token_embd", self.vocabulary, self.hidden
        yield "output", self.vocabulary, self.hidden
        for layer in range(self.layers):
            yield f"blk.{layer}.attn_q", self.hidden, self.hidden
            yield f"blk.{layer}.attn_k", kv_width, self.hidden
            yield f"blk.{layer}.attn_v", kv_width, self.hidden
            yield f"blk.{layer}.attn_output", self.hidden, self.hidden
            yield f"blk.{layer}.ffn_gate", self.feed_forward, self.hidden
            yield f"blk.{layer}.ffn_up", self.feed_forward, self.hidden
            yield f"blk.{layer}.ffn_down", self.hidden, self.feed_forward

    def norms(self) -> Iterator[str]:
        """Names of the normalisation vectors, each ``hidden`` long."""
        yield "output_norm"
        for layer in range(self.layers):
            yield f"blk.{layer}.attn_norm"
            yield f"blk.{layer}.ffn_norm"

    @property
    def parameters(self) -> int:
        """Number of weights."""
        matrices = sum(rows * columns for _, rows, columns in self.matrices())
        return matrices + self.hidden * sum(1 for _ in self.norms())

    @property
    def name(self) -> str:
        """Name of the model, such as ``demo-llama-46m``."""
        return f"demo-llama-{max(1, round(self.parameters / 1e6))}m"


def cache_folder() -> Path:
    """Where the model is kept: ``$WATTBENCH_CACHE``, else the user's cache folder."""
    own, user = os.environ.get("WATTBENCH_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own)
    return (Path(user) if user else Path.home() / ".cache") / "wattbench"


def demo_model(weights: WeightType, shape: DemoShape | None = None, seed: int = 0) -> Path:
    """Path of the demo model in the cache folder; written first if absent or damaged.

    Args:
        weights: How the matrices are stored.
        shape: Size of the model; None for the default.
        seed: Makes weights and tokenizer.

    Raises:
        BackendError: If the cache folder cannot be written.
    """
    shape = shape or DemoShape()
    key = hashlib.sha256(repr((_FORMAT, astuple(shape), seed)).encode()).hexdigest()[:8]
    path = cache_folder() / f"{shape.name}-{weights}-{key}.gguf"
    try:
        if not _is_whole(path):
            write_demo_model(path, weights, shape, seed)
    except OSError as error:
        raise BackendError(
            f"the demo model cannot be written to the cache folder {path.parent}: "
            f"{error.strerror or error}; set WATTBENCH_CACHE to a folder that can be written"
        ) from error
    return path


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _is_whole(path: Path) -> bool:
    """Whether the file is there and is what its sidecar says."""
    try:
        recorded = _sidecar(path).read_text(encoding="ascii", errors="replace").split()
        return recorded[:1] == [file_sha256(path)]
    except FileNotFoundError:
        return False


def write_demo_model(
    path: Path, weights: WeightType, shape: DemoShape | None = None, seed: int = 0
) -> None:
    """Write the model and its ``.sha256`` sidecar, each in one piece.

    Args:
        path: The GGUF file to write; folders are made, an existing file is replaced.
        weights: How the matrices are stored.
        shape: Size of the model; None for the default.
        seed: Makes weights and tokenizer.

    Raises:
        OSError: If the file cannot be written.
    """
    shape = shape or DemoShape()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as part:
        _write_gguf(part, weights, shape, seed)
        line = f"{file_sha256(part)}  {path.name}\n"
    with _replacing(_sidecar(path)) as part:
        part.write_text(line, encoding="ascii")


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A new file beside ``path`` that takes its place at the end, or vanishes on an error."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _raw(seed: int, count: int) -> NDArray[np.uint64]:
    """Raw generator output: numpy keeps this stream for ever, unlike its distributions."""
    import numpy as np

    return np.random.PCG64(seed).random_raw(count)


def train_tokenizer(size: int, seed: int) -> tuple[list[str], list[str]]:
    """Tokens by id, and merges by rank, of a byte-level BPE trained on invented words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    syllables = [onset + vowel for onset in "bcdfghjklmnprstvwz" for vowel in "aeiou"]
    picks = (_raw(seed, 8000 * 4) % len(syllables)).reshape(-1, 4)
    words = ["".join(syllables[i] for i in row[: 1 + n % 4]) for n, row in enumerate(picks)]
    # The product of two even draws favours early words, as a language favours common ones.
    draws = _raw(seed + 1, 6000 * 16 * 2).reshape(6000, 16, 2) % 8000
    lines = [
        " ".join(words[first * second // 8000] for first, second in row) for row in draws.tolist()
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    return sorted(model["vocab"], key=model["vocab"].__getitem__), merges


def _write_gguf(path: Path, weights: WeightType, shape: DemoShape, seed: int) -> None:
    import gguf
    import numpy as np

    tokens, merges = train_tokenizer(shape.vocabulary, seed)
    if len(tokens) != shape.vocabulary:
        raise ValueError(
            f"a vocabulary of {shape.vocabulary} is out of reach: {len(tokens)} tokens"
        )
    writer = gguf.GGUFWriter(path, "llama")
    _add_header(writer, weights, shape)
    _add_tokenizer(writer, tokens, merges)
    for name in shape.norms():
        writer.add_tensor(f"{name}.weight", np.ones(shape.hidden, np.float32))
    for number, (name, rows, columns) in enumerate(shape.matrices()):
        # One draw of 64 bits gives four weights.
        drawn = _raw(seed * 100_003 + number + 2, -(-rows * columns // 4))
        signed = drawn.astype("<u8").view("<i2")[: rows * columns].astype(np.float32)
        _add_matrix(writer, name, signed.reshape(rows, columns) * (_WEIGHT_LIMIT / 2**15), weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_header(writer: Any, weights: WeightType, shape: DemoShape) -> None:
    import gguf

    # The engine chooses how to read the matrices by this entry, not by their own types.
    kinds = {"f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0"}
    writer.add_name(shape.name)
    writer.add_file_type(gguf.LlamaFileType[kinds[weights]])
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.hidden // shape.heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocabulary)


def _add_tokenizer(writer: Any, tokens: list[str], merges: list[str]) -> None:
    import gguf

    plain = len(tokens) - len(_SPECIAL)
    kinds = [gguf.TokenType.CONTROL] * len(_SPECIAL) + [gguf.TokenType.NORMAL] * plain
    writer.add_tokenizer_model("gpt2")  # the format's name for a byte-level BPE
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")


def _add_matrix(writer: Any, name: str, matrix: NDArray[np.float32], weights: WeightType) -> None:
    import gguf
    import numpy as np

    if weights == "f16":
        writer.add_tensor(f"{name}.weight", matrix.astype(np.float16))
        return
    kind = gguf.GGMLQuantizationType[weights.upper()]
    writer.add_tensor(f"{name}.weight", gguf.quants.quantize(matrix, kind), raw_dtype=kind)
