"""The page on the Token Production Function prints what the command prints."""

from __future__ import annotations

import contextlib
import io
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


def test_the_example_of_prices_prints_what_the_page_says() -> None:
    """The permutation test of the page runs, and finds no link."""
    text = (PAGE.parent / "prices-and-carbon.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})  # noqa: S102 - our own page
    assert printed.getvalue().strip() == text.split("```text\n")[1].split("\n```")[0]
