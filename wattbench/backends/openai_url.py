"""Parts of the URL of an API."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit, urlunsplit


def without_query(url: str) -> str:
    """The URL without its query, which may hold a key."""
    return urlunsplit(urlsplit(url)._replace(query="", fragment=""))


def port_of(url: str) -> int:
    """The port, also where the scheme implies it."""
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def has_valid_port(parts: SplitResult) -> bool:
    """Whether the port is one, or none is given."""
    try:
        return parts.port != 0
    except ValueError:
        return False
