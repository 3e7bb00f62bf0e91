"""Compilation of the simulator's kernels, kept from one process to the next.

numba's own cache notices a change in a function's file, not in one that it calls from another
file. The cache of these kernels therefore lies in a folder named after all their sources.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

KernelT = TypeVar("KernelT", bound=Callable[..., Any])


def kernel(function: KernelT) -> KernelT:
    """Compile a function on its first call, exactly (no fast-math), and keep what came out.

    Kernels allocate nothing, so their arrays need no reference counts: without these (``_nrt``)
    and with its parts `inlined` a replay runs some eight times faster.
    """
    return _compiled(function, "never")


def inlined(function: KernelT) -> KernelT:
    """As `kernel`, for a part that becomes one with the kernels that call it."""
    return _compiled(function, "always")


def _compiled(function: KernelT, inline: str) -> KernelT:
    folder, config = _cache_folder(), cast(Any, numba.config)
    before = config.CACHE_DIR
    options: dict[str, Any] = {"_nrt": False, "inline": inline, "cache": folder is not None}
    if folder is None:
        return cast(KernelT, numba.njit(**options)(function))
    config.CACHE_DIR = folder
    try:
        return cast(KernelT, numba.njit(**options)(function))
    finally:
        config.CACHE_DIR = before


def is_kept(name: str) -> bool:
    """Whether a kernel was compiled before, by its ``module.name``."""
    folder = _cache_folder()
    return folder is not None and any(Path(folder).rglob(f"{name}-*.nbi"))


@cache
def _cache_folder() -> str | None:
    """Where compiled kernels lie, by the hash of their sources; None where nothing can be kept."""
    digest = hashlib.sha256(f"{numba.__version__} {sys.version}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "wattbench" / f"kernels-{digest.hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "writable").touch()
    except OSError:
        return None
    return str(folder)
