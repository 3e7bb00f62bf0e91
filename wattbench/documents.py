"""YAML files in: one loader, whose errors name file, line, key and the nearest valid key.

``workload`` and ``hardware`` read their files through this one door; their formats are pydantic
models that forbid unknown keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml
from pydantic_core import ErrorDetails

from wattbench.core.errors import DocumentError, did_you_mean
from wattbench.core.files import why_irregular

ModelT = TypeVar("ModelT", bound=pydantic.BaseModel)
KeyPath = tuple[str | int, ...]
MAX_BYTES = 1_000_000
QUOTED = 60
"""Characters of a value that a message quotes."""
MAX_DIGITS = 40
"""No whole number of a document has more; Python refuses to read or print thousands."""
_MAPPING = "must be a mapping of keys"
_REWORDED = {"model_type": _MAPPING, "model_attributes_type": _MAPPING}
"""Messages that speak of Python's objects, by pydantic's name of the error."""


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

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Refuse what does not fit its type, which PyYAML answers with any error of Python."""
        if node.tag.endswith(":int") and len(str(node.value)) > MAX_DIGITS:
            raise yaml.YAMLError(f"{_place(node)}: a number of {len(node.value)} digits")
        try:
            return super().construct_object(node, deep)
        except (ValueError, AttributeError, LookupError, TypeError, OverflowError) as error:
            kind = node.tag.rpartition(":")[2]
            raise yaml.YAMLError(f"{_place(node)}: {_short(node.value)} is no {kind}") from error


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


def find_document(folder: str, name_or_path: str, what: str, others: str = "a .yaml file") -> Path:
    """Resolve the name of a shipped file, or a path, to a path.

    Args:
        folder: Of the shipped files.
        name_or_path: What the user wrote.
        what: What such a file is, for messages.
        others: What else may be given, for messages.

    Raises:
        DocumentError: If there is neither, with the nearest shipped name.
    """
    path = Path(name_or_path)
    shipped = shipped_folder(folder) / f"{name_or_path}.yaml"
    try:
        if path.is_file():
            return path
        if path.suffix in (".yaml", ".yml"):
            raise DocumentError(f"{what} file {_short(name_or_path)} does not exist")
        if shipped.parent == shipped_folder(folder) and shipped.is_file():
            return shipped
    except OSError as error:
        raise DocumentError(
            f"{what} {_short(name_or_path)} cannot be looked up: {error.strerror}; give a shipped "
            f"name or the path of a .yaml file"
        ) from error
    known = shipped_names(folder)
    hint = did_you_mean(name_or_path, known)
    raise DocumentError(
        f"unknown {what} {_short(name_or_path)}{hint} (shipped: {', '.join(known)}; or the path of "
        f"{others})"
    )


def shipped_names(folder: str) -> list[str]:
    """Names of the shipped files of a folder, sorted."""
    return sorted(path.stem for path in shipped_folder(folder).glob("*.yaml"))


def load_document(
    path: Path, model: type[ModelT], edit: Callable[[dict[str, Any]], None] | None = None
) -> ModelT:
    """Read a YAML file into a format; its validators find ``folder`` and ``stem`` in their context.

    Args:
        path: The file.
        model: Its format.
        edit: Changes what was read, before it is checked.

    Raises:
        DocumentError: Unreadable file, broken YAML, unknown key or impossible value.
    """
    data, lines = _parsed(_text(path), str(path))
    if not isinstance(data, dict):
        raise DocumentError(f"{path}: must be a mapping of keys, not {type(data).__name__}")
    if edit is not None:
        edit(data)
        lines = dict(_edited_lines(data, (), 1, lines))
    try:
        return model.model_validate(data, context={"folder": path.parent, "stem": path.stem})
    except pydantic.ValidationError as error:
        raise DocumentError(_explain(path, model, error, lines)) from error


def yaml_value(text: str, place: str) -> Any:
    """The value of a YAML text of another tool.

    Args:
        text: The text.
        place: Where it stands, for messages.

    Raises:
        DocumentError: If it is none, or too large to be one.
    """
    if len(text) > MAX_BYTES:
        raise DocumentError(f"{place}: more than {MAX_BYTES} bytes are too many for YAML")
    return _parsed(text, place)[0]


def _parsed(text: str, place: str) -> tuple[Any, dict[KeyPath, int]]:
    try:
        return _parse(text)
    except yaml.YAMLError as error:
        raise DocumentError(f"{place}: is not YAML: {_one_line(error)}") from error
    except RecursionError as error:
        raise DocumentError(f"{place}: is nested too deeply") from error


def _text(path: Path) -> str:
    why = why_irregular(path)
    if why is not None:
        raise DocumentError(f"{path}: {why}")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise DocumentError(f"{path}: more than {MAX_BYTES} bytes are too many for such a file")
        return raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"{path}: cannot be read as UTF-8 text: {error}") from error


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
    """Line of every key, from 1.

    Refuses duplicate keys, which YAML would silently drop, and keys that are no plain text.
    """
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or not key.tag.endswith(":str"):
                what = _short(key.value) if isinstance(key, yaml.ScalarNode) else f"a {key.id}"
                raise yaml.YAMLError(f"{_place(key)}: a key must be plain text, not {what}")
            if key.value in seen:
                raise yaml.YAMLError(f"{_place(key)}: key {_short(key.value)} twice")
            seen.add(key.value)
            yield from _lines(value, (*path, key.value))
            yield (*path, key.value), key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, (*path, index))


def _edited_lines(
    value: object, path: KeyPath, line: int, lines: dict[KeyPath, int]
) -> Iterator[tuple[KeyPath, int]]:
    """Line of every key; one that the file does not have takes that of what it stands in."""
    line = lines.get(path, line)
    yield path, line
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _edited_lines(inner, (*path, key), line, lines)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _edited_lines(inner, (*path, index), line, lines)


def _explain(
    path: Path, model: type[ModelT], error: pydantic.ValidationError, lines: dict[KeyPath, int]
) -> str:
    # A misspelt key shows as two errors, one unknown and one missing; the unknown one helps.
    first = min(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
    written = _as_written(first["loc"], lines)
    line = lines.get(written, 1)
    if first["type"] == "extra_forbidden":
        valid = _valid_keys(model, written[:-1])
        hint = did_you_mean(str(written[-1]), valid)
        return f"{path}:{line}: unknown key {_dotted(written)!r}{hint} (valid: {', '.join(valid)})"
    if first["type"] == "missing":
        missing = (*written, first["loc"][-1])
        fix = _to_add(model, missing)
        return f"{path}:{line}: {_dotted(missing)}: {first['msg']}; add `{fix}`"
    key = _dotted(written) or "the document"
    return f"{path}:{line}: {key}{_quoted(first['input'])}: {_message(first, written)}"


def _message(detail: ErrorDetails, written: KeyPath) -> str:
    """What is wrong, in words of the file and not of Python."""
    message = _REWORDED.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    context = detail.get("ctx", {})
    if detail["type"] == "too_short":
        least, key = context["min_length"], str(written[-1]) if written else ""
        what = key.removesuffix("s") if key.endswith("s") else "entry"
        return f"must have at least {'one' if least == 1 else least} {what}"
    if detail["type"] == "literal_error":
        known = re.findall(r"'([^']+)'", context["expected"])
        return message + did_you_mean(str(detail["input"]), known)
    return message


def _quoted(value: object) -> str:
    """A value after its key; of a long mapping its name alone, of a long list nothing."""
    if len(repr(value)) > QUOTED and isinstance(value, dict):
        return f" ({_short(value['name'])})" if "name" in value else ""
    if len(repr(value)) > QUOTED and isinstance(value, list | tuple):
        return ""
    return f" = {_short(value)}"


def _to_add(model: type[pydantic.BaseModel], path: KeyPath) -> str:
    """The missing key as YAML, within the keys around it, or with those that it needs."""
    inner = "…"
    if len(path) == 1:
        schema = model.model_json_schema()
        needed = next((o["required"] for o in _walk(schema, schema, path) if "required" in o), ())
        inner = "{" + ", ".join(f"{key}: …" for key in needed) + "}" if needed else "…"
    for place, key in enumerate(reversed(path)):
        if isinstance(key, int):
            break
        inner = f"{key}: {inner}" if place == 0 else f"{key}: {{{inner}}}"
    return inner


def _as_written(loc: KeyPath, lines: dict[KeyPath, int]) -> KeyPath:
    """Pydantic's location without the names of union members, which the file does not have."""
    written: KeyPath = ()
    for part in loc:
        if (*written, part) in lines:
            written = (*written, part)
    return written


def _dotted(path: KeyPath) -> str:
    text = ".".join(str(part) for part in path)
    return text if len(text) <= 200 else text[:199] + "…"


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


def _place(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= QUOTED else text[: QUOTED - 3] + "…"


def _one_line(error: yaml.YAMLError) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:299] + "…"
