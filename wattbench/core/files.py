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
    kinds = {
        "a folder": stat.S_ISDIR,
        "a pipe": stat.S_ISFIFO,
        "a socket": stat.S_ISSOCK,
        "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
    }
    kind = next((name for name, is_one in kinds.items() if is_one(mode)), "of another kind")
    return f"not a regular file, but {kind}; write its content into a file first"
