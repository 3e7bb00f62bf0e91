"""Model descriptors: what a model asks of a machine, per token."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wattbench.documents import Document

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Precision = Literal["fp32", "bf16", "fp16", "fp8", "int8", "fp4", "mxfp4", "int4"]
BYTES_PER_PARAMETER = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "fp4": 0.5,
    "mxfp4": 0.53125,  # 4 bits, and 8 bits of scale for every 32 weights
    "int4": 0.5,
}


class ModelDescriptor(Document):
    """Shape of a decoder-only transformer.

    Attributes:
        name: File name without ``.yaml``.
        title: The publisher's name for it.
        parameters: All weights [count], heads that predict several tokens ahead left out.
        active_parameters: Weights that one token passes [count]. Equal for a dense model; for
            experts without the table of input embeddings, as their publishers count.
        layers: Transformer blocks.
        hidden: Width of the residual stream.
        attention_heads: Query heads per layer.
        kv_heads: Key/value heads per layer (grouped-query attention when fewer).
        head_dim: Width of one head of keys and values.
        vocabulary: Tokens in the vocabulary.
        context_tokens: Longest context [tokens].
        experts: Routed experts per layer, None for a dense model.
        experts_per_token: Of those, how many one token passes.
        expert_parameters: Weights of all routed experts together [count].
        kv_lora_rank: Width of the latent that stands for keys and values (multi-head latent
            attention), None where keys and values are kept themselves.
        rope_head_dim: Width of the rotary key kept beside the latent, shared by all heads.
        window_layers: Layers that look back over ``window_tokens`` only.
        window_tokens: What those layers see and keep [tokens].
        tied_embeddings: Whether one table serves input and output.
        precision: Number format of weights.
        compute_precision: Number format of the arithmetic, None if that of the weights.
        unquantized_parameters: Weights kept at 16 bits in a quantised model [count].
        kv_precision: Number format of keys and values.
        source: Where the shape is published, with the date.
    """

    name: str
    title: str
    parameters: Positive
    active_parameters: Positive
    layers: Positive
    hidden: Positive
    attention_heads: Positive
    kv_heads: Positive
    head_dim: Positive
    vocabulary: Positive
    context_tokens: Positive
    experts: Positive | None = None
    experts_per_token: Positive | None = None
    expert_parameters: Count = 0
    kv_lora_rank: Positive | None = None
    rope_head_dim: Positive | None = None
    window_layers: Count = 0
    window_tokens: Positive | None = None
    tied_embeddings: bool = False
    precision: Precision = "bf16"
    compute_precision: Literal["fp32", "bf16", "fp16", "fp8", "int8", "fp4"] | None = None
    unquantized_parameters: Count = 0
    kv_precision: Literal["fp32", "bf16", "fp16", "fp8", "int8"] = "bf16"
    source: Annotated[str, Field(min_length=3)]

    @model_validator(mode="after")
    def _consistent(self) -> ModelDescriptor:
        groups = (
            ("experts, experts_per_token and expert_parameters", (
                self.experts, self.experts_per_token, self.expert_parameters or None)),
            ("kv_lora_rank and rope_head_dim", (self.kv_lora_rank, self.rope_head_dim)),
            ("window_layers and window_tokens", (self.window_layers or None, self.window_tokens)),
        )  # fmt: skip
        for names, values in groups:
            if len({value is None for value in values}) > 1:
                raise ValueError(f"{names} come together")
        if max(self.active_parameters, self.expert_parameters) > self.parameters:
            raise ValueError("parameters are fewer than active_parameters or expert_parameters")
        if self.window_layers > self.layers:
            raise ValueError(f"window_layers {self.window_layers} of {self.layers} layers")
        if self.experts and self.experts_per_token and self.experts_per_token > self.experts:
            raise ValueError(f"experts_per_token {self.experts_per_token} of {self.experts}")
        return self

    @property
    def arithmetic(self) -> str:
        """Number format that the weights are multiplied in."""
        return self.compute_precision or self.precision

    @property
    def weight_bytes(self) -> float:
        """Memory of all weights [B]."""
        return self._bytes(self.parameters, self.unquantized_parameters)

    @property
    def active_weight_bytes(self) -> float:
        """Weights read for one token [B]."""
        embeddings = self.vocabulary * self.hidden
        left_out = embeddings if self.experts and not self.tied_embeddings else 0
        kept = max(0, self.unquantized_parameters - left_out)
        return self._bytes(self.active_parameters, kept)

    @property
    def expert_bytes(self) -> float:
        """Memory of all routed experts [B]; part of ``weight_bytes``."""
        return self.expert_parameters * BYTES_PER_PARAMETER[self.precision]

    @property
    def kv_bytes_per_token(self) -> float:
        """What one token of context adds to the cache while no window is full [B].

        Two heads of keys and values in every layer, 2 · layers · kv_heads · head_dim · size; with
        latent attention layers · (kv_lora_rank + rope_head_dim) · size.
        """
        return self.layers * self._kv_bytes_per_layer

    def kv_bytes(self, context_tokens: int) -> float:
        """Cache of one sequence of so many tokens [B]; a window keeps no more than its width."""
        kept = min(context_tokens, self.window_tokens or 0)
        full = self.layers - self.window_layers
        return self._kv_bytes_per_layer * (full * context_tokens + self.window_layers * kept)

    @property
    def attention_flops_per_context_token(self) -> float:
        """Scores and sums over one token of context, for one token computed [FLOP].

        4 · layers · heads · head_dim; latent attention works on the latent itself, with scores
        over the rotary key too: 2 · layers · heads · (2 · kv_lora_rank + rope_head_dim).
        """
        widths = 2 * self.head_dim
        if self.kv_lora_rank and self.rope_head_dim:
            widths = 2 * self.kv_lora_rank + self.rope_head_dim
        return 2.0 * self.layers * self.attention_heads * widths

    @property
    def _kv_bytes_per_layer(self) -> float:
        values = 2 * self.kv_heads * self.head_dim
        if self.kv_lora_rank and self.rope_head_dim:
            values = self.kv_lora_rank + self.rope_head_dim
        return values * BYTES_PER_PARAMETER[self.kv_precision]

    def _bytes(self, parameters: int, unquantized: int) -> float:
        size = BYTES_PER_PARAMETER[self.precision]
        return (parameters - unquantized) * size + unquantized * BYTES_PER_PARAMETER["bf16"]
