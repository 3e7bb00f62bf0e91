"""Keys out of texts of others, before they are stored or shown: in addresses, headers, messages."""

from __future__ import annotations

import re

LEFT_OUT = "left-out"
_USER = re.compile(r"(?<=//)[^\s/?#\"'<>\\]+@")
_QUERY = re.compile(
    r"(?<=//)(?P<host>(?:(?!//)[^\s?#\"'<>\\])*)(?P<mark>[?#])(?P<rest>[^\s\"'<>\\]*)"
    r"|(?<=[\w/.\-\]])(?P<sign>[?#])(?P<pairs>[^\s=?#\"'<>\\]{1,80}=[^\s\"'<>\\]*)"
)
_VALUE = re.compile(r"(?<==)[^&;?#]+")
_NAMED = re.compile(
    r"((?:authorization|(?:x[-_])?api[-_ ]?key|(?:access|auth|refresh)[-_]token|password"
    r"|secret(?:[-_](?:access[-_])?key)?)"
    r"[\"'\\]*\s*(?:[:=]|%3[ad])\s*[\"'\\]*(?:(?:bearer|basic|token)\s+)?)[^\s\"',;&}\\]+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(\bbearer\s+)[\w.~+/=\-]{6,}", re.IGNORECASE)
_WORDS = ("authorization", "key", "-token", "_token", "password", "secret")
_TOKEN_IS = re.compile(
    r"(\btoken[\"']?(?:=|%3d)[\"'\\]*)(?!left-out)[^\s\"',;&}\\]{6,}", re.IGNORECASE
)
_WEB_TOKEN = re.compile(r"(?<![\w\-])eyJ[\w\-]{6,}(?:\.[\w\-]*){2,4}")
_CLOUD_KEY = re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")
_PREFIXES = ("sk-", "pk-", "gsk_", "hf_", "nvapi-", "ghp_", "glpat-")
_TOKEN = re.compile(rf"\b({'|'.join(_PREFIXES)})[\w\-*.]{{6,}}")


def without_credentials(text: str) -> str:
    """A text without what opens a door: users and queries of addresses, and keys by their form.

    Names stay, so that a reader sees what was there. An address keeps its scheme, host and path.

    Args:
        text: Any text, such as an address, an error message or a whole document.
    """
    # Looking for a word first is ten times as fast, and most texts have none.
    if "//" in text:
        text = _USER.sub("", text)
    if "?" in text or "#" in text:
        text = _QUERY.sub(_without_values, text)
    small = text.lower()
    if any(word in small for word in _WORDS):
        text = _NAMED.sub(rf"\1{LEFT_OUT}", text)
    if "token=" in small or "%3d" in small:
        text = _TOKEN_IS.sub(rf"\1{LEFT_OUT}", text)
    if "eyJ" in text:
        text = _WEB_TOKEN.sub(LEFT_OUT, text)
    if "AKIA" in text or "ASIA" in text:
        text = _CLOUD_KEY.sub(LEFT_OUT, text)
    if "bearer" in small:
        text = _BEARER.sub(rf"\1{LEFT_OUT}", text)
    if any(prefix in text for prefix in _PREFIXES):
        text = _TOKEN.sub(rf"\1{LEFT_OUT}", text)
    return text


def _without_values(found: re.Match[str]) -> str:
    host, mark, rest = found["host"] or "", found["mark"] or found["sign"], found["rest"]
    query = found["pairs"] if rest is None else rest
    if "=" in query:
        return host + mark + _VALUE.sub(LEFT_OUT, query)
    return host + mark + (LEFT_OUT if query and mark == "?" else query)
