"""What the backend ``openai`` can be told."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from wattbench.backends.openai_lengths import Setting
from wattbench.backends.openai_url import has_valid_port, without_query
from wattbench.plugins import option

MAX_PROCESSES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIOptions:
    """Options of the backend ``openai``.

    Raises:
        ValueError: If the URL is none or contains credentials, ``key_env`` is no name, or the
            time-out is not positive.
    """

    url: str = dataclasses.field(
        metadata={"help": "base URL of the API, such as http://localhost:8000/v1"}
    )
    model: str | None = option(None, "model to ask for; without it the first one served")
    api: Literal["chat", "completions"] = option("completions", "endpoint to send requests to")
    key_env: str = option("OPENAI_API_KEY", "NAME of the environment variable that holds the key")
    timeout_s: float = option(600.0, "longest time without a byte from the server [s]")
    verify_tls: bool = option(True, "whether to check the server's certificate")
    exact_lengths: Setting = option(
        "auto",
        "how prompts get their length: the server's tokenizer, its counts, or a word a token",
    )
    client_processes: int = option(1, "processes that send; more where one is not fast enough")

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if "@" in (parts.netloc or self.url):
            raise ValueError("url must not contain credentials; name a variable by key_env=…")
        shown = without_query(self.url)
        if parts.scheme not in ("http", "https"):
            raise ValueError(f"url={shown!r} must begin with http:// or https://")
        if not parts.hostname or re.search(r"\s", self.url) or not has_valid_port(parts):
            raise ValueError(f"url={shown!r} is no URL, such as http://localhost:8000/v1")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_env):
            # Not quoted: it may well be the key itself.
            raise ValueError("key_env must be the NAME of an environment variable, never the key")
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise ValueError(f"timeout_s={self.timeout_s} must be a positive number of seconds")
        if not 1 <= self.client_processes <= MAX_PROCESSES:
            raise ValueError(
                f"client_processes={self.client_processes} must be from 1 to {MAX_PROCESSES}"
            )
