"""Answers that fail, over loopback: recorded with their class, their energy charged."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from wire import emulated, get, run_point

FAULTS = {
    "http-429,every=5": "HttpStatusError",
    "http-500,every=7": "HttpStatusError",
    "hang,every=11": "RequestTimeout",
    "half-closed,every=13": "StreamError",
    "malformed,every=17": "StreamError",
    "wrong-usage,every=19": "WrongUsage",
}
WORDS = ("HTTP 429", "HTTP 500", "ended early", "malformed JSON", "usage counts")


def failures(folder: Path) -> Counter[str]:
    """How often each class of failure is on record."""
    query = "select error_class, count(*) from requests where error_class is not null group by 1"
    with sqlite3.connect(folder / "runs.sqlite") as database:
        return Counter(dict(database.execute(query)))


def test_each_failure_has_its_class(tmp_path: Path) -> None:
    """Some answers fail in each way; the others count, and the joules of all are charged."""
    options = [word for fault in FAULTS for word in ("--answer-fault", fault)]
    with emulated("h100-sxm", *options) as (url, _):
        point = run(tmp_path, url)
        window = point["window"]
        true = get(f"{url}/truth?start={window['start_unix_s']}&end={window['end_unix_s']}")
    assert set(failures(tmp_path)) == set(FAULTS.values())
    with sqlite3.connect(tmp_path / "runs.sqlite") as database:
        told = " ".join(
            text for (text,) in database.execute("select error_text from requests") if text
        )
    assert [word for word in WORDS if word not in told] == []
    completed, failed = (point["requests"][name] for name in ("completed", "failed"))
    assert min(completed, failed) > 5
    gross = point["energy"]["headline"]["gross_joules"]["value"]
    assert gross == pytest.approx(true["energy_joules"], rel=0.02)
    # All of it is divided by the answers that came whole.
    charged = point["metrics"]["energy_per_request_joules"]["value"]
    assert charged > 1.2 * gross / (completed + failed)


def test_a_dying_server_ends_the_run_and_loses_nothing(tmp_path: Path) -> None:
    """What was answered is on record, the rest by its class; the run says why it stopped."""
    with emulated("h100-sxm", "--answer-fault", "die,every=40") as (url, _):
        point = run(tmp_path, url)
    found = failures(tmp_path)
    assert found["ConnectionFailed"] >= 1
    assert found["StreamError"] >= 1
    assert point["requests"]["completed"] >= 5
    assert point["verdict"]["performance"] == "invalid"


def run(folder: Path, url: str) -> dict[str, Any]:
    return run_point(folder, url, f"prometheus,url={url}/metrics", duration_s=4.0, timeout_s=1.0)
