"""Operating points as a table or as the JSON of ``wattbench show``."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Iterator, Sequence

from wattbench.core.errors import UsageError
from wattbench.core.run import RawRun
from wattbench.frames import frames_of
from wattbench.results import document, evaluate


def json_file(runs: Sequence[RawRun]) -> Iterator[tuple[str, bytes]]:
    """What ``wattbench show --json`` prints."""
    text = json.dumps(document(evaluate(runs), "export"), allow_nan=False)
    yield "points.json", text.encode()


def csv_file(runs: Sequence[RawRun]) -> Iterator[tuple[str, bytes]]:
    """A line per operating point, the columns of ``wattbench.load(…).points``; unknown is empty."""
    yield "points.csv", frames_of(runs).points.to_csv(index=False).encode()


def parquet_file(runs: Sequence[RawRun]) -> Iterator[tuple[str, bytes]]:
    """The same, and the frames ``runs``, ``requests`` and ``power``, a file each.

    Raises:
        UsageError: If pyarrow is not installed.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError("parquet needs pyarrow: pip install 'wattbench[parquet]'")
    frames = frames_of(runs)
    for name in ("points", "runs", "requests", "power"):
        buffer = io.BytesIO()
        getattr(frames, name).to_parquet(buffer, index=False)
        yield f"{name}.parquet", buffer.getvalue()
