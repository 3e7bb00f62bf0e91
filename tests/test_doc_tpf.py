"""The page on the Token Production Function prints what the command prints."""

from __future__ import annotations

import shlex
from pathlib import Path

from command import called

PAGE = Path(__file__).parents[1] / "docs" / "token-production.md"


def blocks(language: str) -> list[str]:
    """Fenced blocks of a language, in order."""
    parts = PAGE.read_text(encoding="utf-8").split("```")
    return [p.removeprefix(f"{language}\n") for p in parts[1::2] if p.startswith(f"{language}\n")]


def test_the_ceilings_of_the_page_are_those_of_the_command() -> None:
    """Command and output stand one below the other."""
    (command,) = (block for block in blocks("bash") if "tpf ceilings" in block)
    (shown,) = (block for block in blocks("text") if "energy ceiling" in block)
    words = shlex.split(command.replace("\\\n", " "))
    assert words[0] == "wattbench"
    done = called(*words[1:])
    assert [line.rstrip() for line in done.stdout.splitlines()] == [
        line.rstrip() for line in shown.splitlines()
    ]
