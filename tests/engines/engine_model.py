"""The demo model in the two forms that the foreign servers read."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from engine_list import FOLDER, GGUF, HUB, TRANSFORMERS

from wattbench.backends.demo_model import DemoShape, write_demo_model

UNKNOWN = "<unk>"
_TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
_WEIGHTS = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig.from_pretrained(sys.argv[1])).save_pretrained(sys.argv[1])
"""


def write_models() -> None:
    """Write what is not there yet: the GGUF file, and the folder without weights."""
    (HUB / "hub").mkdir(parents=True, exist_ok=True)
    shape = DemoShape()
    if not GGUF.exists():
        write_demo_model(GGUF, "f16", shape)
    if not (FOLDER / "config.json").exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        _write_tokenizer(FOLDER, shape)
        _write_config(FOLDER, shape)


def write_weights() -> None:
    """Write random weights into the folder, by the engine that reads them."""
    if not (FOLDER / "model.safetensors").exists():
        python = TRANSFORMERS.folder / "venv" / "bin" / "python"
        subprocess.run([python, "-c", _WEIGHTS, FOLDER], check=True, capture_output=True)


def _write_tokenizer(folder: Path, shape: DemoShape) -> None:
    import gguf
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    reader = gguf.GGUFReader(GGUF)
    told = {
        name: reader.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges")
    }
    vocabulary = {token: number for number, token in enumerate(told["tokens"])}
    merges = [tuple(pair.split(" ", 1)) for pair in told["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True) for text in (UNKNOWN, "<s>", "</s>")]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": UNKNOWN,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "model_max_length": shape.context,
        "chat_template": _TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def _write_config(folder: Path, shape: DemoShape) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
