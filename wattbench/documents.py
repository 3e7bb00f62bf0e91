"""YAML files in: one loader, whose errors name file, line, key and the nearest valid key.

``workload`` and ``hardware`` read their files through this one door; their formats are pydantic
models that forbid unknown keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from wattbench.core.errors import DocumentError, did_you_mean

ModelT = TypeVar("ModelT", bound=pydantic.BaseModel)
KeyPath = tuple[str | int, ...]
MAX_BYTES = 1_000_000


class Document(pydantic.BaseModel):
    """Base of every file format: frozen, and an unknown key is an error."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Loader(yaml.SafeLoader):
    """Plain YAML with YAML 1.2's ideas of a number and a date, and without aliases.

    YAML 1.1 takes ``989e12`` for a text and ``2026-03-31`` for a date object. An alias can make
    a small file mean a huge document.
    """

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        """Refuse aliases."""
        if self.check_event(yaml.AliasEvent):
            line = self.line + 1
            raise yaml.YAMLError(f"line {line}: aliases (*name) are not allowed")
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def shipped_folder(name: str) -> Path:
    """A folder of YAML files that come with wattbench: inside the wheel, or beside the package."""
    package = Path(__file__).parent
    inside = package / "_shipped" / name
    return inside if inside.is_dir() else package.parent / name


def find_document(folder: str, name_or_path: str, what: str) -> Path:
    """Resolve the name of a shipped file, or a path, to a path.

    Raises:
        DocumentError: If there is neither, with the nearest shipped name.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise DocumentError(f"{what} file {name_or_path!r} does not exist")
        return path
    shipped = shipped_folder(folder) / f"{name_or_path}.yaml"
    if shipped.is_file() and shipped.parent == shipped_folder(folder):
        return shipped
    known = shipped_names(folder)
    hint = did_you_mean(name_or_path, known)
    raise DocumentError(
        f"unknown {what} {name_or_path!r}{hint} (shipped: {', '.join(known)}; or the path of a "
        f".yaml file)"
    )


def shipped_names(folder: str) -> list[str]:
    """Names of the shipped files of a folder, sorted."""
    return sorted(path.stem for path in shipped_folder(folder).glob("*.yaml"))


def load_document(path: Path, model: type[ModelT]) -> ModelT:
    """Read a YAML file into a format.

    Raises:
        DocumentError: Unreadable file, broken YAML, unknown key or impossible value.
    """
    try:
        raw = path.read_bytes()
        text = raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    if len(raw) > MAX_BYTES:
        raise DocumentError(f"{path}: {len(raw)} bytes are too many for a {model.__name__} file")
    try:
        data, lines = _parse(text)
    except yaml.YAMLError as error:
        raise DocumentError(f"{path}: is not YAML: {_one_line(error)}") from error
    except RecursionError as error:
        raise DocumentError(f"{path}: is nested too deeply") from error
    if not isinstance(data, dict):
        raise DocumentError(f"{path}: must be a mapping of keys, not {type(data).__name__}")
    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        raise DocumentError(_explain(path, model, error, lines)) from error


def _parse(text: str) -> tuple[Any, dict[KeyPath, int]]:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, {}
        lines = dict(_lines(node, ()))
        return loader.construct_document(node), lines
    finally:
        loader.dispose()


def _lines(node: yaml.Node, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    """Line of every key, from 1; refuses duplicate keys, which YAML would silently drop."""
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: key {key.value!r} twice")
            seen.add(key.value)
            yield from _lines(value, (*path, key.value))
            yield (*path, key.value), key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, (*path, index))


def _explain(
    path: Path, model: type[ModelT], error: pydantic.ValidationError, lines: dict[KeyPath, int]
) -> str:
    # A misspelt key shows as two errors, one unknown and one missing; the unknown one helps.
    first = min(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
    known_path = _without_union_tags(first["loc"], lines)
    line = lines.get(known_path, lines.get(known_path[:-1], 1))
    key = ".".join(str(part) for part in known_path) or "the document"
    if first["type"] == "extra_forbidden":
        valid = _valid_keys(model, known_path[:-1])
        hint = did_you_mean(str(known_path[-1]), valid)
        return f"{path}:{line}: unknown key {key!r}{hint} (valid: {', '.join(valid)})"
    value = "" if first["type"] == "missing" else f" = {_short(first['input'])}"
    missing_key = ".".join(str(part) for part in first["loc"])
    key = missing_key if first["type"] == "missing" else key
    return f"{path}:{line}: {key}{value}: {first['msg'].removeprefix('Value error, ')}"


def _without_union_tags(loc: KeyPath, lines: dict[KeyPath, int]) -> KeyPath:
    """Pydantic's location without the names of union members, which the file does not have."""
    written = {part for path in lines for part in path}
    return tuple(part for part in loc if part in written)


def _valid_keys(model: type[pydantic.BaseModel], path: KeyPath) -> list[str]:
    schema = model.model_json_schema()
    options = _walk(schema, schema, path)
    return sorted({key for option in options for key in option.get("properties", {})})


def _walk(schema: dict[str, Any], root: dict[str, Any], path: KeyPath) -> list[dict[str, Any]]:
    """All object schemas that may stand at a path."""
    if "$ref" in schema:
        return _walk(root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root, path)
    found = [
        option
        for choice in ("anyOf", "oneOf")
        for part in schema.get(choice, [])
        for option in _walk(part, root, path)
    ]
    if found or not path:
        return found or [schema]
    head, rest = path[0], path[1:]
    if isinstance(head, int):
        child = schema.get("items")
    else:
        child = schema.get("properties", {}).get(head) or schema.get("additionalProperties")
    return _walk(child, root, rest) if isinstance(child, dict) else []


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _one_line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())
