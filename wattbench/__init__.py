"""wattbench: how many joules a token costs, and how sure that number is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from wattbench.frames import Frames

__version__ = "0.1.0"


def load(database: str | Path | None = None, runs: str | None = None) -> Frames:
    """Stored runs as pandas data frames: ``runs``, ``points``, ``requests`` and ``power``.

    Args:
        database: Path or URL; None: ``WATTBENCH_DB``, else the usual place.
        runs: Which runs, as ``--runs`` takes it; None for all.

    Raises:
        UsageError: If the selector means nothing.
        StoreError: If the database cannot be read.
    """
    from wattbench.frames import load_frames

    return load_frames(database, runs)
