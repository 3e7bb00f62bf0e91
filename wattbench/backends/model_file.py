"""What a model file says about itself, read without an engine.

An engine handed a damaged file may be killed by it, so the header is checked here first.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wattbench.core.errors import BackendError

IR_MODEL = "openvino_model.xml"

_HASH_BLOCK_BYTES = 1 << 20
_GGUF_SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_GGUF_TEXT, _GGUF_ARRAY = 8, 9
_GGUF_MOST_LENGTHS = 4
_IR_CONSTANT = re.compile(rb'type="Const"[^>]*>\s*<data ([^>]*)/>')
_IR_ATTRIBUTE = re.compile(rb'(\w+)="([^"]*)"')
_IR_NAMES = {"u8": "int8", "i8": "int8", "u4": "int4", "i4": "int4"}
_IR_INDICES = ("i64", "i32", "boolean", "string")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A model on disk.

    Attributes:
        path: A GGUF file, or a folder in OpenVINO's own format.
        weights: How most weights are stored: ``f32``, ``f16``, ``bf16``, ``int8``, ``int4``, or
            the file's own word.
        parameters: Number of weights; scales and zero points do not count.
        size_bytes: Size of the weights and what describes them.
        sha256: SHA-256 of the same, as hexadecimal digits.
    """

    path: Path
    weights: str
    parameters: int
    size_bytes: int
    sha256: str


def inspect(path: Path) -> ModelFile:
    """Read and check the header of a model, and hash the whole.

    Raises:
        BackendError: If it cannot be read, is damaged or is of another kind.
    """
    try:
        if path.is_dir():
            files = [path / IR_MODEL, (path / IR_MODEL).with_suffix(".bin")]
            elements = _ir_elements(files[0])
        else:
            files = [path]
            elements = _gguf_elements(path)
        size_bytes = sum(file.stat().st_size for file in files)
        sha256 = file_sha256(*files)
    except OSError as error:
        raise BackendError(f"the model {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, struct.error) as error:
        raise BackendError(
            f"the model {path} is damaged or no model: {error}; fetch or convert it again"
        ) from error
    return ModelFile(
        path=path,
        weights=elements.most_common(1)[0][0],
        parameters=elements.total(),
        size_bytes=size_bytes,
        sha256=sha256,
    )


def file_sha256(*paths: Path) -> str:
    """SHA-256 of files one after another, as hexadecimal digits.

    Raises:
        OSError: If a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_HASH_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def _ir_elements(path: Path) -> Counter[str]:
    """Number of weights by the way they are stored, from the network's description."""
    elements: Counter[str] = Counter()
    seen = set()
    for constant in _IR_CONSTANT.finditer(path.read_bytes()):
        data = {key.decode(): value.decode() for key, value in _IR_ATTRIBUTE.findall(constant[1])}
        shape = [int(part) for part in data.get("shape", "").split(",") if part.strip()]
        kind = data.get("element_type", "")
        # Scales and zero points have one value per group of weights: their last length is 1.
        if kind in _IR_INDICES or not shape or shape[-1] == 1 or data.get("offset") in seen:
            continue
        seen.add(data.get("offset"))
        elements[_IR_NAMES.get(kind, kind)] += math.prod(shape)
    if not elements:
        raise ValueError("it has no weights")
    return elements


def _gguf_elements(path: Path) -> Counter[str]:
    """Number of weights by the way they are stored, from a GGUF header."""
    if path.stat().st_size == 0:
        raise ValueError("it is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        cursor = _Cursor(data)
        try:
            elements, end_bytes = _read_gguf(cursor)
        except struct.error:
            raise ValueError("it ends within its header") from None
        if end_bytes > len(data):
            raise ValueError(f"it should have at least {end_bytes} bytes and has {len(data)}")
    return elements


class _Cursor:
    """Reads little-endian values one after another."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self.offset = 0

    def read(self, layout: str) -> Any:
        (value,) = struct.unpack_from(f"<{layout}", self._data, self.offset)
        self.offset += struct.calcsize(f"<{layout}")
        return value

    def read_text(self) -> str:
        length = self.read("Q")
        self.skip(length)
        return self._data[self.offset - length : self.offset].decode("utf-8", errors="replace")

    def skip(self, count: int) -> None:
        self.offset += count
        if self.offset > len(self._data):
            raise struct.error

    def read_value(self, kind: int) -> Any:
        """A scalar or text; arrays are passed over and give None."""
        if kind == _GGUF_TEXT:
            return self.read_text()
        if kind == _GGUF_ARRAY:
            element_kind = self.read("I")
            self._skip_array(element_kind, self.read("Q"))
            return None
        return self.read(_scalar(kind))

    def _skip_array(self, kind: int, count: int) -> None:
        if kind != _GGUF_TEXT:
            self.skip(count * struct.calcsize(f"<{_scalar(kind)}"))
            return
        for _ in range(count):
            self.skip(self.read("Q"))


def _scalar(kind: int) -> str:
    if kind not in _GGUF_SCALARS:
        raise ValueError(f"its header has a value of the unknown type {kind}")
    return _GGUF_SCALARS[kind]


def _read_gguf(cursor: _Cursor) -> tuple[Counter[str], int]:
    """Number of weights by the way they are stored, and where the last of them ends [byte]."""
    if cursor.read("4s") != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    version = cursor.read("I")
    if version not in (2, 3):
        raise ValueError(f"it claims to be GGUF version {version}")
    tensors, entries = cursor.read("Q"), cursor.read("Q")
    alignment = 32
    for _ in range(entries):
        key, kind = cursor.read_text(), cursor.read("I")
        value = cursor.read_value(kind)
        if key == "general.alignment":
            alignment = max(1, int(value))
    elements: Counter[str] = Counter()
    end_bytes = 0
    for name, count, offset, size_bytes in _gguf_tensors(cursor, tensors):
        elements[name] += count
        end_bytes = max(end_bytes, offset + size_bytes)
    if not elements:
        raise ValueError("it has no weights")
    return elements, -(-cursor.offset // alignment) * alignment + end_bytes


def _gguf_tensors(cursor: _Cursor, tensors: int) -> Iterator[tuple[str, int, int, int]]:
    """How each matrix is stored, its weights, its offset and its size [bytes]."""
    import gguf

    for _ in range(tensors):
        cursor.read_text()
        lengths = cursor.read("I")
        if lengths > _GGUF_MOST_LENGTHS:
            raise ValueError(f"its header describes a matrix with {lengths} lengths")
        count = math.prod([cursor.read("Q") for _ in range(lengths)])
        kind, offset = gguf.GGMLQuantizationType(cursor.read("I")), cursor.read("Q")
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        yield _gguf_name(kind.name), count, offset, count // block * block_bytes


def _gguf_name(kind: str) -> str:
    """``int8`` and ``int4`` for the formats with so many bits, whatever their blocks are."""
    bits = re.match(r"I?Q([48])_", kind)
    return f"int{bits[1]}" if bits else kind.lower()
