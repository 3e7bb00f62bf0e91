"""The client measured by itself."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path


def test_it_measures_keeps_and_quotes_itself(tmp_path: Path) -> None:
    environment = os.environ | {"WATTBENCH_DB": str(tmp_path / "x.db")}
    wattbench = [sys.executable, "-m", "wattbench"]
    test = subprocess.run(
        [*wattbench, "selftest", "--json", "--duration-s", "0.4"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    found = json.loads(test.stdout)
    assert found["requests_per_s"] > 100
    assert found["chunks_per_s"] > 1000
    # Written before it is stamped, and both by one clock.
    assert 0 < found["stamp_error_p50_s"] <= found["stamp_error_p99_s"] < 1
    assert 0 <= found["schedule_lag_p50_s"] <= found["schedule_lag_p99_s"]
    run = [*wattbench, "run", "quickstart", "--backend", "emulated", "--hardware", "h100-sxm"]
    run += ["--concurrency", "1", "--json"]
    subprocess.run(run, check=True, env=environment, stdout=subprocess.DEVNULL)
    with closing(sqlite3.connect(tmp_path / "x.db")) as database:
        (stored,) = database.execute("SELECT environment FROM runs").fetchone()
    assert json.loads(stored)["selftest"]["requests_per_s"] == found["requests_per_s"]
