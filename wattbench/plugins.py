"""Plug-ins: finding them, and the one option grammar ``NAME[,key=value…]``.

A plug-in is a class under the entry-point group ``wattbench.backends``, ``wattbench.meters`` or
``wattbench.policies``.
It has a frozen dataclass ``Options`` whose fields carry a default and ``help``, a static
``availability()`` that says why it cannot work here (None: it can), and a constructor
``(options, context)``. The built-ins use the same groups.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from wattbench.core.errors import OptionError, UsageError, did_you_mean

if TYPE_CHECKING:
    from wattbench.core.protocols import Backend

Group = Literal["backends", "meters", "policies"]
SINGULAR: Mapping[Group, str] = {"backends": "backend", "meters": "meter", "policies": "policy"}
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def option(default: Any, help: str) -> Any:
    """A field of an ``Options`` class: its default and a sentence for ``wattbench list``."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginContext:
    """What a plug-in may depend on when it is constructed.

    Attributes:
        hardware: The machine profile of the run, a ``wattbench.hardware.MachineProfile``;
            None if the user named none.
        seed: Seed of the run.
        backend: The run's backend, for meters that come with one.
    """

    hardware: Any
    seed: int
    backend: Backend | None = None


@dataclass(frozen=True, slots=True)
class PluginSpec:
    """``NAME[,key=value…]``, split but not yet given its types."""

    name: str
    values: Mapping[str, str]


def parse_spec(text: str) -> PluginSpec:
    """Split ``NAME[,key=value…]``; a value with commas stands in single or double quotes.

    Example:
        >>> parse_spec('prometheus,url=http://h:9,query="a{x,y}"')
        PluginSpec(name='prometheus', values={'url': 'http://h:9', 'query': 'a{x,y}'})

    Raises:
        OptionError: If a part is no ``key=value``, a key is given twice or a quote is left open.
    """
    name, *parts = _split(text)
    if not name or "=" in name:
        raise OptionError(f"{text!r} must begin with a plug-in's name: NAME[,key=value…]")
    values: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or not key:
            raise OptionError(f"{name}: {part!r} is not key=value (in {text!r})")
        if key in values:
            raise OptionError(f"{name}: option {key!r} is given twice (in {text!r})")
        values[key] = _unquoted(value)
    return PluginSpec(name.strip(), values)


def _split(text: str) -> list[str]:
    """Cut at commas outside quotes; a quote opens a value only right after ``=``."""
    parts, current, quote = [], "", ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"" and current.endswith("="):
            quote = char
        elif char == ",":
            parts.append(current)
            current = ""
            continue
        current += char
    if quote:
        raise OptionError(f"{text!r}: the quote {quote} is never closed")
    return [*parts, current]


def _unquoted(value: str) -> str:
    quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value


def parse_options(spec: PluginSpec, options_class: type[Any]) -> Any:
    """Give the values of a spec the types of an ``Options`` class.

    Raises:
        OptionError: For an unknown key (with the nearest one), or a value of the wrong type.
    """
    hints = typing.get_type_hints(options_class)
    known = [field.name for field in dataclasses.fields(options_class)]
    typed: dict[str, Any] = {}
    for key, value in spec.values.items():
        if key not in known:
            raise OptionError(_unknown_option(spec.name, key, known))
        typed[key] = _typed(spec.name, key, value, hints[key])
    missing = [
        field.name
        for field in dataclasses.fields(options_class)
        if field.default is dataclasses.MISSING and field.name not in typed
    ]
    if missing:
        raise OptionError(
            f"{spec.name}: needs {missing[0]}=…, as in {spec.name},{missing[0]}=VALUE"
        )
    try:
        return options_class(**typed)
    except ValueError as error:
        raise OptionError(f"{spec.name}: {error}") from error


def _unknown_option(plugin: str, key: str, known: list[str]) -> str:
    hint = did_you_mean(key, known)
    options = f"it has {', '.join(known)}" if known else "it has none"
    return f"{plugin}: unknown option {key!r}{hint} ({options})"


def _typed(plugin: str, key: str, text: str, hint: Any) -> Any:
    """Convert one value; ``none`` stands for None where the option allows it."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        inner = [part for part in typing.get_args(hint) if part is not type(None)]
        return None if text.lower() == "none" else _typed(plugin, key, text, inner[0])
    if typing.get_origin(hint) is Literal:
        if text not in typing.get_args(hint):
            choices = ", ".join(typing.get_args(hint))
            raise OptionError(f"{plugin}: {key}={text!r} is not one of {choices}")
        return text
    if hint is bool and text.lower() in (*_TRUE, *_FALSE):
        return text.lower() in _TRUE
    wanted = {int: "a whole number", float: "a number", bool: "true or false"}.get(hint, "a text")
    try:
        if hint is bool:
            raise ValueError
        value = hint(text)
        if hint is float and not math.isfinite(value):
            raise ValueError
    except ValueError:
        raise OptionError(f"{plugin}: {key}={text!r} is not {wanted}") from None
    return value


def describe_options(options_class: type[Any]) -> list[dict[str, str]]:
    """Name, type, default and help of each option, for listings and documentation."""
    hints = typing.get_type_hints(options_class)
    return [
        {
            "name": field.name,
            "type": _type_name(hints[field.name]),
            "default": "required" if field.default is dataclasses.MISSING else str(field.default),
            "help": field.metadata.get("help", ""),
        }
        for field in dataclasses.fields(options_class)
    ]


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Union:
        inner = [part for part in typing.get_args(hint) if part is not type(None)]
        return _type_name(inner[0])
    if typing.get_origin(hint) is Literal:
        return "|".join(typing.get_args(hint))
    return re.sub(r" \| None$", "", getattr(hint, "__name__", str(hint)))


def names(group: Group) -> list[str]:
    """Names of all plug-ins of a group, sorted.

    Raises:
        UsageError: If two installed packages claim one name.
    """
    found = [entry.name for entry in importlib.metadata.entry_points(group=f"wattbench.{group}")]
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise UsageError(f"two installed packages offer {twice[0]!r} under wattbench.{group}")
    return sorted(found)


def find(group: Group, name: str) -> Any:
    """The class of one plug-in.

    Raises:
        UsageError: If there is none of that name, with the nearest one, or it cannot be imported.
    """
    known = names(group)
    if name not in known:
        hint = did_you_mean(name, known)
        raise UsageError(f"unknown {SINGULAR[group]} {name!r}{hint} (there are {', '.join(known)})")
    (entry,) = importlib.metadata.entry_points(group=f"wattbench.{group}", name=name)
    try:
        return entry.load()
    except ImportError as error:
        raise UsageError(
            f"{SINGULAR[group]} {name!r} ({entry.value}) cannot be imported: {error}"
        ) from error
