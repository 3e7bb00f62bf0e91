"""What several commands read from the database."""

from __future__ import annotations

from wattbench.core.errors import UsageError
from wattbench.core.run import RawRun
from wattbench.store import (
    URL,
    StoredCalibration,
    connect,
    load_calibration,
    load_run,
    select_runs,
    show_url,
)


def load_runs(url: URL, selector: str) -> list[RawRun]:
    """The selected runs, oldest first.

    Raises:
        UsageError: If the selector means nothing or selects nothing.
        StoreError: If the database cannot be read.
    """
    engine = connect(url, create=False)
    try:
        runs = [load_run(engine, run.run_id) for run in select_runs(engine, selector)]
    finally:
        engine.dispose()
    if not runs:
        raise UsageError(f"no run matches {selector!r} in {show_url(url)}")
    return runs


def calibration_of(url: URL, calibration_id: str) -> StoredCalibration:
    """A calibration by its id, or the latest.

    Raises:
        UsageError: If there is none of that name.
        StoreError: If the database cannot be read.
    """
    engine = connect(url, create=False)
    try:
        return load_calibration(engine, calibration_id)
    finally:
        engine.dispose()
