"""Latencies over loopback against the stamps of the server that wrote the events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from latency_truth import Latencies, measured
from wire import emulated


def test_latencies_are_those_of_the_server(tmp_path: Path) -> None:
    """Medians of sixteen streams, eight tokens an event.

    `make bench-latency` asks for 1 ms, of a host without other work.

    A client that takes chunks for tokens, or leaves waiting out, is off by far more.
    """
    options = ("--model", "llama-3.1-70b", "--tokens-per-chunk", "8")
    with emulated("h100-sxm", *options) as (url, _):
        run = measured(tmp_path, url, users=16, duration_s=3.0)
        true, _ = run.true_latencies(url)
    assert run.point["requests"]["failed"] == 0
    found = run.latencies()
    for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s"):
        median, truth = median_of(found, name), median_of(true, name)
        assert median == pytest.approx(truth, abs=10e-3, rel=0.05), name


def test_waiting_for_a_full_server_counts(tmp_path: Path) -> None:
    """Two places, eight users: the time in the queue is part of TTFT."""
    with emulated("h100-sxm", "--power", "max_batch=2") as (url, _):
        found = measured(tmp_path, url, users=8, duration_s=2.0).latencies()
    e2e_s, ttft_s = (np.median(getattr(found, name)) for name in ("e2e_s", "ttft_s"))
    assert ttft_s > 0.6 * e2e_s


def median_of(latencies: Latencies, name: str) -> float:
    values: Any = getattr(latencies, name)
    assert len(values) > 20
    return float(np.median(values))
