"""What a path leads to, asked before it is opened: a pipe or a device would be read for ever."""

from __future__ import annotations

import stat
from pathlib import Path


def why_irregular(path: Path) -> str | None:
    """Why a path cannot be read as a file, None if it can, or if there is nothing at it.

    Args:
        path: The path; links are followed.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None  # whoever opens it says what is wrong
    if stat.S_ISREG(mode):
        return None
    kinds = (
        (stat.S_ISDIR(mode), "a folder"),
        (stat.S_ISFIFO(mode), "a pipe"),
        (stat.S_ISSOCK(mode), "a socket"),
        (stat.S_ISCHR(mode) or stat.S_ISBLK(mode), "a device"),
    )
    kind = next((name for is_one, name in kinds if is_one), "of another kind")
    return f"not a regular file, but {kind}; write its content into a file first"
