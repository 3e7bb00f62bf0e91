"""Model descriptors: shipped ones, and those counted from a Hugging Face ``config.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import called

from wattbench.core.errors import DocumentError
from wattbench.hardware import (
    ModelDescriptor,
    devices_needed,
    load_model,
    load_profile,
    model_from_config,
    model_names,
    roofline,
)


def config(model_type: str, **keys: Any) -> dict[str, Any]:
    return {"model_type": model_type, "torch_dtype": "bfloat16", **keys}


SHAPE = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
)


def shape(*values: int) -> dict[str, int]:
    return dict(zip(SHAPE, values, strict=True))


LLAMA_8B = config("llama", **shape(4096, 32, 32, 8, 14336, 128256, 131072))
GPT_OSS = config(
    "gpt_oss",
    **shape(2880, 36, 64, 8, 2880, 201088, 131072),
    head_dim=64,
    num_local_experts=128,
    num_experts_per_tok=4,
    attention_bias=True,
    sliding_window=128,
    layer_types=["sliding_attention", "full_attention"] * 18,
    quantization_config={"quant_method": "mxfp4"},
)
DEEPSEEK = config(
    "deepseek_v3",
    **shape(7168, 61, 128, 128, 18432, 129280, 163840),
    moe_intermediate_size=2048,
    n_routed_experts=256,
    n_shared_experts=1,
    num_experts_per_tok=8,
    first_k_dense_replace=3,
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]},
)
QWEN_235B = config(
    "qwen3_moe",
    **shape(4096, 94, 64, 4, 12288, 151936, 40960),
    head_dim=128,
    moe_intermediate_size=1536,
    num_experts=128,
    num_experts_per_tok=8,
    decoder_sparse_step=1,
    mlp_only_layers=[],
)
GLM = config(
    "glm4_moe",
    **shape(5120, 92, 96, 8, 12288, 151552, 202752),
    head_dim=128,
    moe_intermediate_size=1536,
    n_routed_experts=160,
    n_shared_experts=1,
    num_experts_per_tok=8,
    first_k_dense_replace=3,
    attention_bias=True,
    use_qk_norm=True,
)
MIXTRAL = config(
    "mixtral",
    **shape(4096, 32, 32, 8, 14336, 32000, 32768),
    num_local_experts=8,
    num_experts_per_tok=2,
    sliding_window=None,
)
QWEN_32B = config("qwen3", **shape(5120, 64, 64, 8, 25600, 151936, 40960), head_dim=128)
GEMMA = config(
    "gemma2",
    **shape(4608, 46, 32, 16, 36864, 256000, 8192),
    head_dim=128,
    sliding_window=4096,
)
LLAMA_405B = config("llama", **shape(16384, 126, 128, 8, 53248, 128256, 131072))

PUBLISHED = {
    "llama-3.1-8b": (LLAMA_8B, 8.030e9, 8.030e9),
    "llama-3.1-405b": (LLAMA_405B, 405.85e9, 405.85e9),
    "qwen3-32b": (QWEN_32B, 32.8e9, 32.8e9),
    "qwen3-235b-a22b": (QWEN_235B, 235e9, 22e9),
    "mixtral-8x7b": (MIXTRAL, 46.7e9, 12.9e9),
    "gpt-oss-120b": (GPT_OSS, 116.83e9, 5.13e9),
    "deepseek-v3": (DEEPSEEK, 671e9, 37e9),
    "glm-4.7": (GLM, 355e9, 32e9),
    "gemma-2-27b": (GEMMA, 27.227e9, 27.227e9),
}
"""Configs, and the weights that their publishers name: all, and those that a token passes."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_are_counted_as_published(name: str) -> None:
    """Within a hundredth in all; publishers round what is active, and count it in their ways."""
    written, total, active = PUBLISHED[name]
    model = model_from_config(written, name)
    assert model.parameters == pytest.approx(total, rel=0.01)
    assert model.active_parameters == pytest.approx(active, rel=0.03)


@pytest.mark.parametrize("name", PUBLISHED)
def test_shipped_descriptors_say_what_their_configs_say(name: str) -> None:
    """A shipped file and the config of the same model differ in title and source only."""
    shipped = load_model(name)
    told = model_from_config(PUBLISHED[name][0], name)
    assert told.model_copy(update={"title": shipped.title, "source": shipped.source}) == shipped


def test_every_shipped_descriptor_loads_and_names_itself() -> None:
    """The file's name is the model's."""
    assert [load_model(name).name for name in model_names()] == model_names()
    assert set(PUBLISHED) | {"llama-3.1-70b"} == set(model_names())


def test_a_config_is_taken_wherever_a_model_is(tmp_path: Path) -> None:
    """A folder with a config.json, the file itself, and the emulated engine's option."""
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_8B))
    for path in (folder, folder / "config.json"):
        model = load_model(str(path))
        assert (model.name, model.parameters) == ("my-model", 8_030_261_248)
    shown = json.loads(called("show", "model", str(folder), "--json").stdout)["model"]
    assert shown["derived"]["kv_bytes_per_token"] == 131072
    where = f"emulated,model={folder}"
    arguments = ["--backend", where, "--hardware", "h100-sxm", "--seed", "1", "--json"]
    done = called("run", "quickstart", *arguments, "--db", str(tmp_path / "runs.sqlite"))
    assert '"my-model"' in done.stdout


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"num_hidden_layers": None}, "key 'num_hidden_layers' is missing"),
        ({"vocab_size": "many"}, "vocab_size = 'many' must be a whole number"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers = 1000000000000 is no model's depth"),
        ({"hidden_size": 0}, "hidden_size = 0 must be a whole number"),
        ({"model_type": "llamma"}, "cannot be counted; did you mean 'llama'?"),
        ({"model_type": "mixtral"}, "key 'num_local_experts' is missing"),
        (DEEPSEEK | {"kv_lora_rank": None}, "key 'kv_lora_rank' is missing"),
        ({"torch_dtype": None}, "torch_dtype = None must be one of float32"),
        ({"quantization_config": {"quant_method": "hqq"}}, "quant_method = 'hqq' is not known"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config.bits = None"),
        ({"quantization_config": 4}, "quantization_config = 4 must be an object"),
    ],
)
def test_what_a_config_lacks_is_named(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    """File, key and value stand in the error."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA_8B | changes))
    with pytest.raises(DocumentError) as caught:
        load_model(str(path))
    assert str(caught.value).startswith(str(path))
    assert complaint in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "\xff", ""])
def test_what_is_no_config_is_refused(tmp_path: Path, text: str) -> None:
    """Broken JSON, another kind of document, no text at all."""
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DocumentError, match=r"config\.json"):
        load_model(str(path))


GROUP_W4 = {"weights": {"type": "int", "num_bits": 4}, "input_activations": None}
GROUP_W8A8 = {"weights": {"type": "float", "num_bits": 8}, "input_activations": {"num_bits": 8}}


@pytest.mark.parametrize(
    ("quantised", "weights", "arithmetic", "kv"),
    [
        ({"quant_method": "gptq", "bits": 4}, "int4", "bf16", "bf16"),
        ({"quant_method": "awq", "bits": 4}, "int4", "bf16", "bf16"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8", "bf16", "bf16"),
        ({"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}, "fp4", "fp4", "fp8"),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": GROUP_W4}},
            "int4",
            "bf16",
            "bf16",
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": GROUP_W8A8}},
            "fp8",
            "fp8",
            "bf16",
        ),
    ],
)
def test_precision_is_read_from_the_quantisation(
    quantised: dict[str, Any], weights: str, arithmetic: str, kv: str
) -> None:
    """Weights, arithmetic and cache apart; embeddings and head stay at 16 bits."""
    model = model_from_config(LLAMA_8B | {"quantization_config": quantised})
    assert (model.precision, model.arithmetic, model.kv_precision) == (weights, arithmetic, kv)
    assert model.unquantized_parameters == 2 * 128256 * 4096


def test_memory_of_published_checkpoints() -> None:
    """OpenAI's file of gpt-oss-120b has 60.8 GiB; DeepSeek keeps 576 values per token and layer."""
    assert load_model("gpt-oss-120b").weight_bytes == pytest.approx(60.8 * 2**30, rel=0.01)
    assert load_model("deepseek-v3").kv_bytes_per_token == 61 * 576 * 2


def test_a_window_keeps_no_more_than_its_width() -> None:
    """Half of gpt-oss's layers hold 128 tokens, the others all."""
    model = load_model("gpt-oss-120b")
    layer = 2 * 8 * 64 * 2
    assert model.kv_bytes(100) == 36 * layer * 100 == 100 * model.kv_bytes_per_token
    assert model.kv_bytes(10_000) == 18 * layer * (10_000 + 128)


@pytest.mark.parametrize(
    "changes",
    [
        {"experts": 8},
        {"kv_lora_rank": 512},
        {"window_layers": 4},
        {"active_parameters": 10**12},
        {"window_layers": 99, "window_tokens": 128},
    ],
)
def test_a_descriptor_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    """Half of a group, or more of a part than of the whole."""
    whole = load_model("llama-3.1-8b").model_dump() | changes
    with pytest.raises(ValueError, match=r"together|fewer|of 32 layers"):
        ModelDescriptor(**whole)


def test_systems_by_weights_and_cache() -> None:
    """gpt-oss-120B at inputs of 96,300 tokens, 1.78 TB of cache: 42 systems of 44 GB.

    The closed form of tokenomics.info/cerebras, 2026; 500 sequences make that cache.
    """
    wafer, model = load_profile("cerebras-cs3"), load_model("gpt-oss-120b")
    assert 500 * model.kv_bytes(96_300) == pytest.approx(1.78e12, abs=0.005e12)
    assert devices_needed(wafer, model, 96_300, 500) == 42
    assert devices_needed(wafer, load_model("llama-3.1-70b"), 1, 1) == 4


def test_a_batch_reads_more_experts() -> None:
    """One token reads the chosen experts, a full batch nearly all of them, and never more."""
    machine, model = load_profile("h200-sxm"), load_model("mixtral-8x7b")
    physics = roofline(machine, model)
    read = [
        (physics.step(n, 0, 0).duration_s - physics.overhead_s) * physics.bytes_per_s
        for n in (1, 2, 64)
    ]
    assert read[0] == pytest.approx(model.active_weight_bytes)
    assert read[1] - read[0] == pytest.approx(model.expert_bytes * (7 / 16 - 1 / 4))
    everything = model.active_weight_bytes + model.expert_bytes * 3 / 4
    assert read[2] == pytest.approx(everything, rel=1e-6)


def test_an_unknown_model_names_every_way() -> None:
    """A name, a descriptor, a config or its folder."""
    done = called("show", "model", "nope")
    assert done.returncode == 2
    assert "config.json, or of its folder" in done.stderr
