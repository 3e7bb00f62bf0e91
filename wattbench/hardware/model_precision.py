"""Number formats of a model from its ``config.json``: weights, arithmetic, keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wattbench.core.errors import DocumentError

_PLAIN = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
_BY_METHOD = {"fp8": "fp8", "fbgemm_fp8": "fp8", "mxfp4": "mxfp4"}
_BY_ALGORITHM = {"FP8": "fp8", "NVFP4": "fp4"}
_METHODS = ("fp8", "fbgemm_fp8", "mxfp4", "gptq", "awq", "bitsandbytes", "compressed-tensors")


def precision_fields(config: Mapping[str, Any], where: str, dense_count: int) -> dict[str, Any]:
    """The fields of a descriptor that say in which formats it is kept and computed.

    Args:
        config: Content of the ``config.json``.
        where: Its place, for messages.
        dense_count: Weights that are no routed experts; MXFP4 keeps them at 16 bits.

    Raises:
        DocumentError: If a format is missing or not known.
    """
    told = config.get("dtype", config.get("torch_dtype"))
    plain = _PLAIN.get(str(told).removeprefix("torch."))
    quantised = config.get("quantization_config")
    if plain is None and (quantised is None or told is not None):
        raise DocumentError(
            f"{where}: torch_dtype = {told!r} must be one of {', '.join(_PLAIN)}; it says in which "
            f"format the weights are kept"
        )
    plain = plain or "bf16"
    if quantised is None:
        return {"precision": plain, "kv_precision": plain}
    if not isinstance(quantised, Mapping):
        raise DocumentError(f"{where}: quantization_config = {quantised!r} must be an object")
    precision, weights_only = _quantised(quantised, where)
    fields = {"precision": precision, "kv_precision": _kv_precision(quantised, plain)}
    if weights_only:
        fields["compute_precision"] = plain
    table = int(config.get("vocab_size", 0)) * int(config.get("hidden_size", 0))
    tables = table if config.get("tie_word_embeddings") else 2 * table
    kept = dense_count if precision == "mxfp4" else tables
    return fields | {"unquantized_parameters": kept}


def _quantised(config: Mapping[str, Any], where: str) -> tuple[str, bool]:
    """Format of the weights, and whether the arithmetic stays in the plain one."""
    method = config.get("quant_method")
    if method in _BY_METHOD:
        return _BY_METHOD[method], method == "mxfp4"
    algorithm = config.get("quant_algo")
    if algorithm in _BY_ALGORITHM:
        return _BY_ALGORITHM[algorithm], False
    if method in ("gptq", "awq"):
        return _integer(config.get("bits"), where, "quantization_config.bits"), True
    if method == "bitsandbytes":
        return ("int4" if config.get("load_in_4bit") else "int8"), True
    if method == "compressed-tensors":
        return _compressed(config, where)
    raise DocumentError(
        f"{where}: quantization_config.quant_method = {method!r} is not known "
        f"(known: {', '.join(_METHODS)}, or quant_algo FP8 or NVFP4); write a descriptor"
    )


def _compressed(config: Mapping[str, Any], where: str) -> tuple[str, bool]:
    groups = config.get("config_groups")
    group = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = group.get("weights") if isinstance(group, Mapping) else None
    key = "quantization_config.config_groups.*.weights"
    if not isinstance(group, Mapping) or not isinstance(weights, Mapping):
        raise DocumentError(f"{where}: {key} is missing, which says the format of the weights")
    weights_only = group.get("input_activations") is None
    bits = weights.get("num_bits")
    if weights.get("type") == "float" and bits in (4, 8):
        return f"fp{bits}", weights_only
    return _integer(bits, where, f"{key}.num_bits"), weights_only


def _integer(bits: object, where: str, key: str) -> str:
    if bits not in (4, 8):
        raise DocumentError(f"{where}: {key} = {bits!r} must be 4 or 8")
    return f"int{bits}"


def _kv_precision(config: Mapping[str, Any], plain: str) -> str:
    scheme = config.get("kv_cache_scheme")
    fp8 = isinstance(scheme, Mapping) and scheme.get("num_bits") == 8
    return "fp8" if fp8 or config.get("kv_cache_quant_algo") == "FP8" else plain
