"""A model descriptor from the ``config.json`` that Hugging Face models come with.

Weights are counted from the shape, matrix by matrix, with biases and norms:

    block   = attention + feed-forward + norms
    total   = embeddings + Σ blocks + last norm + head (nothing where it is tied)
    active  = total − (1 − k/E) · routed experts − embeddings (experts only, where not tied)

Only architectures whose matrices are known are counted; another one is an error, not a guess.

Source: the model classes of Hugging Face transformers 4.57, October 2025.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from wattbench.core.errors import DocumentError, did_you_mean
from wattbench.core.files import why_irregular
from wattbench.documents import MAX_BYTES
from wattbench.hardware.model import ModelDescriptor
from wattbench.hardware.model_precision import precision_fields

CONFIG = "config.json"
MOST_LAYERS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What of an architecture its config does not say.

    Attributes:
        biases: Which projections of attention carry a bias: those of queries, keys and values
            (``qkv``), the output too (``qkvo``), or none.
        bias_asked: The config turns the biases on, by ``attention_bias``.
        head_norms: Queries and keys are normalised per head; ``asked`` by ``use_qk_norm``.
        norms: Norms of the width of the residual stream, per block.
        tied: Whether the head is tied where the config does not say.
        experts: Key of the number of routed experts, None for dense models.
        expert_width: Key of the width of one expert.
        expert_bias: Router and experts carry biases, and attention a sink per head.
        router_bias: The router carries a correcting bias per expert.
        latent: Multi-head latent attention.
        windows: Which layers have a window where ``layer_types`` is not given: ``all``,
            ``alternate`` or ``none``.
    """

    biases: str = ""
    bias_asked: bool = False
    head_norms: str = "no"
    norms: int = 2
    tied: bool = False
    experts: str | None = None
    expert_width: str = "moe_intermediate_size"
    expert_bias: bool = False
    router_bias: bool = False
    latent: bool = False
    windows: str = "none"


_DEEPSEEK = Architecture(experts="n_routed_experts", router_bias=True, latent=True)
ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(biases="qkvo", bias_asked=True),
    "mistral": Architecture(windows="all"),
    "qwen2": Architecture(biases="qkv"),
    "qwen3": Architecture(biases="qkvo", bias_asked=True, head_norms="yes"),
    "gemma2": Architecture(norms=4, tied=True, windows="alternate"),
    "mixtral": Architecture(
        experts="num_local_experts", expert_width="intermediate_size", windows="all"
    ),
    "qwen3_moe": Architecture(
        biases="qkvo", bias_asked=True, head_norms="yes", experts="num_experts"
    ),
    "gpt_oss": Architecture(
        biases="qkvo",
        bias_asked=True,
        experts="num_local_experts",
        expert_width="intermediate_size",
        expert_bias=True,
        windows="alternate",
    ),
    "glm4_moe": Architecture(
        biases="qkv",
        bias_asked=True,
        head_norms="asked",
        experts="n_routed_experts",
        router_bias=True,
    ),
    "deepseek_v3": _DEEPSEEK,
    "kimi_k2": _DEEPSEEK,
}


def model_from_config(
    source: str | Path | Mapping[str, Any], name: str | None = None
) -> ModelDescriptor:
    """A descriptor from a ``config.json``, or what was read from one.

    Args:
        source: The file, its folder, or its content.
        name: What to call it; else the folder's name.

    Raises:
        DocumentError: If the file cannot be read, the architecture is not known, or a key that is
            needed is missing or impossible.
    """
    config, where = (source, "config") if isinstance(source, Mapping) else _read(Path(source))
    shape = _Shape(config, where)
    called = name or (Path(where).resolve().parent.name if where != "config" else shape.kind)
    counts = shape.counted()
    try:
        return ModelDescriptor(
            name=called,
            title=str(config.get("_name_or_path") or called),
            source=f"{where}, {shape.kind}: parameters counted from the shape",
            **counts,
            **precision_fields(config, where, counts["parameters"] - counts["expert_parameters"]),
        )
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the shape"
        raise DocumentError(f"{where}: {key} = {first['input']!r}: {first['msg']}") from error


def _read(path: Path) -> tuple[Mapping[str, Any], str]:
    file = path / CONFIG if path.is_dir() else path
    why = why_irregular(file)
    if why is not None:
        raise DocumentError(f"{file}: {why}")
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise DocumentError(f"{file}: more than {MAX_BYTES} bytes are too many for a config")
        config = json.loads(raw)
    except RecursionError as error:
        raise DocumentError(f"{file}: nested too deep to be a {CONFIG}") from error
    except (OSError, ValueError) as error:
        raise DocumentError(f"{file}: cannot be read as a {CONFIG}: {error}") from error
    if not isinstance(config, dict):
        raise DocumentError(f"{file}: must be an object, not {type(config).__name__}")
    return config, str(file)


class _Shape:
    """A config with its architecture: looks up what is needed, and counts."""

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        self.config, self.where = config, where
        self.kind = str(config.get("model_type"))
        if self.kind not in ARCHITECTURES:
            hint = did_you_mean(self.kind, list(ARCHITECTURES))
            raise DocumentError(
                f"{where}: the weights of model_type = {self.kind!r} cannot be counted{hint} "
                f"(known: {', '.join(ARCHITECTURES)}; or write a descriptor, such as "
                f"hardware_profiles/models/llama-3.1-8b.yaml)"
            )
        self.known = ARCHITECTURES[self.kind]
        self.hidden = self.need("hidden_size")
        self.layers = self.need("num_hidden_layers")
        if self.layers > MOST_LAYERS:
            raise DocumentError(f"{where}: num_hidden_layers = {self.layers} is no model's depth")
        self.heads = self.need("num_attention_heads")
        self.kv_heads = self.get("num_key_value_heads", self.heads)
        self.head_dim = self.get("head_dim", self.hidden // self.heads)

    def need(self, key: str) -> int:
        """A whole number above 0 that nothing can be counted without."""
        if self.config.get(key) is None:
            raise DocumentError(
                f"{self.where}: key {key!r} is missing, which {self.kind} models need; take the "
                f"file as its publisher made it, or write a descriptor"
            )
        return self.get(key, 0)

    def get(self, key: str, default: int, least: int = 1) -> int:
        """A whole number, or what stands for it where the config is silent."""
        value = self.config.get(key)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise DocumentError(f"{self.where}: {key} = {value!r} must be a whole number ≥ {least}")
        return value

    def counted(self) -> dict[str, Any]:
        """The fields of a descriptor that follow from the shape."""
        vocabulary = self.need("vocab_size")
        tied = bool(self.config.get("tie_word_embeddings", self.known.tied))
        embeddings = vocabulary * self.hidden
        routed, feed_forward = self._feed_forward()
        attention = self._latent_attention() if self.known.latent else self._attention()
        blocks = self.layers * (attention + self.known.norms * self.hidden) + feed_forward
        total = embeddings * (1 if tied else 2) + blocks + self.hidden
        fields: dict[str, Any] = {"active_parameters": total, "expert_parameters": 0}
        if routed:
            experts = self.need(str(self.known.experts))
            chosen = self.need("num_experts_per_tok")
            active = total - routed + routed * chosen // experts - (0 if tied else embeddings)
            fields = {
                "active_parameters": active,
                "expert_parameters": routed,
                "experts": experts,
                "experts_per_token": chosen,
            }
        if self.known.latent:
            fields["kv_lora_rank"] = self.need("kv_lora_rank")
            fields["rope_head_dim"] = self.need("qk_rope_head_dim")
        return fields | self._windows() | {
            "parameters": total,
            "layers": self.layers,
            "hidden": self.hidden,
            "attention_heads": self.heads,
            "kv_heads": self.kv_heads,
            "head_dim": self.need("v_head_dim") if self.known.latent else self.head_dim,
            "vocabulary": vocabulary,
            "context_tokens": self.need("max_position_embeddings"),
            "tied_embeddings": tied,
        }  # fmt: skip

    def _attention(self) -> int:
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        count = self.hidden * (2 * queries + 2 * keys)
        biases = self.known.biases
        if self.known.bias_asked and not self.config.get("attention_bias"):
            biases = ""
        count += (queries + 2 * keys if "qkv" in biases else 0) + self.hidden * ("o" in biases)
        normed = self.known.head_norms
        if normed == "yes" or (normed == "asked" and self.config.get("use_qk_norm")):
            count += 2 * self.head_dim
        return count + (self.heads if self.known.expert_bias else 0)

    def _latent_attention(self) -> int:
        """Low-rank queries and keys/values, each with its norm; see DeepSeek-V2, arXiv 2405.04434.

        A config with full-rank queries says ``q_lora_rank: null``.
        """
        latent, rope = self.need("kv_lora_rank"), self.need("qk_rope_head_dim")
        plain, values = self.need("qk_nope_head_dim"), self.need("v_head_dim")
        queries, rank = self.heads * (plain + rope), self.get("q_lora_rank", 0)
        count = rank * (self.hidden + 1 + queries) if rank else self.hidden * queries
        count += self.hidden * (latent + rope) + latent + latent * self.heads * (plain + values)
        return count + self.heads * values * self.hidden

    def _feed_forward(self) -> tuple[int, int]:
        """Weights of all routed experts, and of all feed-forward parts with them."""
        if self.known.experts is None:
            return 0, self.layers * 3 * self.hidden * self.need("intermediate_size")
        experts, width = self.need(self.known.experts), self.need(self.known.expert_width)
        expert = 3 * self.hidden * width
        router = experts * self.hidden
        if self.known.expert_bias:
            expert += 2 * width + self.hidden
            router += experts
        if self.known.router_bias:
            router += experts
        shared = self.get("n_shared_experts", 0, least=0) * 3 * self.hidden * width
        dense = self._dense_layers()
        sparse = self.layers - dense
        routed = sparse * experts * expert
        rest = dense * 3 * self.hidden * self.need("intermediate_size") if dense else 0
        return routed, routed + sparse * (router + shared) + rest

    def _dense_layers(self) -> int:
        """Layers without experts: the first ones, those named, or all but every n-th."""
        first = min(self.get("first_k_dense_replace", 0, least=0), self.layers)
        named = self.config.get("mlp_only_layers") or []
        step = self.get("decoder_sparse_step", 1)
        dense = {
            layer
            for layer in range(self.layers)
            if layer < first or layer in named or (layer + 1) % step
        }
        return len(dense)

    def _windows(self) -> dict[str, int]:
        if self.known.windows == "none" or self.config.get("sliding_window") is None:
            return {}
        types = self.config.get("layer_types")
        if isinstance(types, list):
            count = types.count("sliding_attention")
        else:
            count = self.layers if self.known.windows == "all" else (self.layers + 1) // 2
        return {"window_layers": count, "window_tokens": self.need("sliding_window")}
