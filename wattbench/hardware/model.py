"""Model descriptors: what a model asks of a machine, per token."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from wattbench.documents import Document, find_document, load_document, shipped_names

FOLDER = "hardware_profiles/models"
Positive = Annotated[int, Field(gt=0)]
BYTES_PER_PARAMETER = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5}


class ModelDescriptor(Document):
    """Shape of a decoder-only transformer.

    Attributes:
        name: File name without ``.yaml``.
        title: The publisher's name for it.
        parameters: All weights [count].
        active_parameters: Weights that one token passes [count]; equal for a dense model.
        layers: Transformer blocks.
        hidden: Width of the residual stream.
        attention_heads: Query heads per layer.
        kv_heads: Key/value heads per layer (grouped-query attention when fewer).
        head_dim: Width of one head.
        vocabulary: Tokens in the vocabulary.
        context_tokens: Longest context [tokens].
        precision: Number format of weights.
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
    precision: Literal["fp32", "bf16", "fp16", "fp8", "int8", "int4"] = "bf16"
    kv_precision: Literal["fp32", "bf16", "fp16", "fp8", "int8"] = "bf16"
    source: Annotated[str, Field(min_length=3)]

    @property
    def weight_bytes(self) -> float:
        """Memory of all weights [B]."""
        return self.parameters * BYTES_PER_PARAMETER[self.precision]

    @property
    def active_weight_bytes(self) -> float:
        """Weights read for one token [B]."""
        return self.active_parameters * BYTES_PER_PARAMETER[self.precision]

    @property
    def kv_bytes_per_token(self) -> float:
        """Keys and values of one token of context [B]: 2 · layers · kv_heads · head_dim · size."""
        size = BYTES_PER_PARAMETER[self.kv_precision]
        return 2 * self.layers * self.kv_heads * self.head_dim * size


def load_model(name_or_path: str) -> ModelDescriptor:
    """A shipped model descriptor by name, or any by path.

    Raises:
        DocumentError: If there is none, or the file is wrong.
    """
    return load_document(find_document(FOLDER, name_or_path, "model descriptor"), ModelDescriptor)


def model_names() -> list[str]:
    """Names of the shipped descriptors."""
    return shipped_names(FOLDER)
