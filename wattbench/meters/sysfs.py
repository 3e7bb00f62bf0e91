"""Small files of the kernel, one value each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from wattbench.core.errors import MeterError
from wattbench.meters.polling import Clock, Reading, bracketed


def read_text(path: Path) -> str:
    """What a file says; nothing if it is not there or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def read_int(path: Path) -> int:
    """The whole number in a file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it holds no number.
    """
    return int(path.read_text(encoding="ascii"))


def check_root(root: str, period_s: float | None) -> None:
    """Refuse options that no tree of files can be read with.

    Raises:
        ValueError: If the folder is not there, or the period is impossible.
    """
    if not Path(root).is_dir():
        raise ValueError(f"root={root!r} is no folder")
    if period_s is not None and not 0.005 <= period_s <= 60.0:
        raise ValueError(f"period_s={period_s:g} must be from 0.005 to 60 s")


def readings(
    now_s: Clock, sources: Iterable[tuple[str, Callable[[], float]]], place: Path
) -> list[Reading]:
    """Readings of the domains that can be read now; the others are left out.

    Raises:
        MeterError: If none can.
    """
    found: list[Reading] = []
    failure: Exception | None = None
    for domain, read in sources:
        try:
            found.append(bracketed(now_s, domain, read))
        except (OSError, ValueError) as error:
            failure = error
    if not found:
        raise MeterError(f"nothing under {place} can be read any more: {failure}")
    return found
