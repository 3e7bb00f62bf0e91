"""Latencies as measured beside those that the server wrote: `make bench-latency`.

200 streams over loopback from an emulated machine: a token per event, eight per event, and with a
quarter of the places. Asked for: medians within 1 ms or 1 %, p99 within 3 ms or 3 %. How late the
server itself wrote (after the machine had the token) is reported apart: it is in both columns.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from latency_truth import measured
from wire import emulated, get

USERS = 200
SECONDS = 20.0
CASES: dict[str, tuple[str, ...]] = {
    "a token per event": (),
    "eight per event": ("--tokens-per-chunk", "8"),
    "places full": ("--power", "max_batch=50"),
}
LEVELS = {"p50": (0.5, 1e-3, 0.01), "p99": (0.99, 3e-3, 0.03)}
"""For each percentile its level, and the error allowed: absolute [s] or relative."""
NAMES = ("ttft_s", "tpot_s", "itl_s", "e2e_s")


def compare(title: str, options: tuple[str, ...]) -> bool:
    """Print one case; whether every figure is within its bound."""
    with (
        tempfile.TemporaryDirectory() as folder,
        emulated("h100-sxm", "--model", "llama-3.1-70b", *options) as (url, _),
    ):
        run = measured(Path(folder), url, users=USERS, duration_s=SECONDS)
        true, transit_s = run.true_latencies(url)
        late = get(f"{url}/truth?start=0&end=1")["emission_lateness"]
    found, point = run.latencies(), run.point
    tokens_per_s = point["tokens"]["output"] / point["window"]["duration_s"]
    print(
        f"\n{title}: {len(found.ttft_s)} requests, {point['requests']['failed']} failed, "
        f"{tokens_per_s:,.0f} output tokens/s"
    )
    p50_s, p99_s = (late[name] or float("nan") for name in ("p50_s", "p99_s"))
    print(
        f"  the server wrote {p50_s * 1e3:.2f} ms (median), {p99_s * 1e3:.2f} ms (p99) after the "
        f"machine; {late['behind_count']} of {late['count'] + late['behind_count']} later still"
    )
    p50_s, p99_s = np.quantile(transit_s, (0.5, 0.99))
    print(
        f"  and took {p50_s * 1e3:.2f} ms (median), {p99_s * 1e3:.2f} ms (p99) from the client's "
        "wish to its handler"
    )
    good = True
    for name in NAMES:
        for label, (level, bound_s, bound_fraction) in LEVELS.items():
            here, there = (float(np.quantile(getattr(each, name), level)) for each in (found, true))
            within = abs(here - there) <= max(bound_s, bound_fraction * there)
            good &= within
            print(
                f"  {name[:-2].upper():5s} {label}  measured {here * 1e3:10.3f} ms   true "
                f"{there * 1e3:10.3f} ms   {(here - there) * 1e3:+8.3f} ms  "
                f"{'' if within else 'MISSED'}"
            )
    return good


if __name__ == "__main__":
    results = [compare(title, options) for title, options in CASES.items()]
    sys.exit(0 if all(results) else 1)
