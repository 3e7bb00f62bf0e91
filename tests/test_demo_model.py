"""Tests of the model that is written instead of downloaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from wattbench.backends.demo_model import DemoShape, cache_folder, demo_model, write_demo_model
from wattbench.backends.model_file import file_sha256, inspect
from wattbench.core.errors import BackendError

if not all(importlib.util.find_spec(name) for name in ("gguf", "tokenizers")):
    pytest.skip("needs the extra 'cpu'", allow_module_level=True)

TINY = DemoShape(
    layers=2, hidden=64, heads=2, kv_heads=1, feed_forward=128, vocabulary=400, context=512
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WATTBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("weights", "stored"), [("f16", "f16"), ("q8_0", "int8"), ("q4_0", "int4")]
)
def test_demo_model_is_reproducible(tmp_path: Path, weights: Any, stored: str) -> None:
    for name in ("a.gguf", "b.gguf"):
        write_demo_model(tmp_path / name, weights, TINY)
    model = inspect(tmp_path / "a.gguf")
    assert model.weights == stored
    assert model.parameters == TINY.parameters
    assert model.sha256 == file_sha256(tmp_path / "b.gguf")
    write_demo_model(tmp_path / "b.gguf", weights, TINY, seed=1)
    assert model.sha256 != file_sha256(tmp_path / "b.gguf")


def test_damaged_cached_model_is_written_again(cache: Path) -> None:
    path = demo_model("q8_0", TINY)
    assert path.parent == cache
    whole, inode = path.read_bytes(), path.stat().st_ino
    assert demo_model("q8_0", TINY).stat().st_ino == inode  # used as it is
    path.write_bytes(whole[:100] + b"\0" + whole[101:])
    assert demo_model("q8_0", TINY).read_bytes() == whole
    path.unlink()
    assert demo_model("q8_0", TINY).read_bytes() == whole
    assert sorted(file.suffix for file in cache.iterdir()) == [".gguf", ".sha256"]


def test_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file" / "cache"
    blocked.parent.write_text("a file where a folder is needed")
    monkeypatch.setenv("WATTBENCH_CACHE", str(blocked))
    with pytest.raises(BackendError, match="set WATTBENCH_CACHE") as caught:
        demo_model("q8_0", TINY)
    assert str(blocked) in str(caught.value)


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATTBENCH_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_folder() == Path("/a")
    monkeypatch.delenv("WATTBENCH_CACHE")
    assert cache_folder() == Path("/b/wattbench")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "wattbench"
